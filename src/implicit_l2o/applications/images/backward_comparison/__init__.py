"""Backward modes compared on images: one network, one data order, one tolerance; the gradient alone differs."""
