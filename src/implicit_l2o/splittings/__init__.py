"""splittings"""
