"""Dijkstra's trees of cheapest paths from one node to all others, with centroids that no path passes through; compiled."""

import numpy as np

from implicit_l2o._numba import compiled


@compiled
def sift_up(heap, place, distance, k):
    """Move the node at position `k` of the heap towards the root while it is nearer than its parent."""
    node = heap[k]
    near = distance[node]
    while k > 0:
        parent = (k - 1) >> 1
        above = heap[parent]
        if distance[above] <= near:
            break
        heap[k] = above
        place[above] = k
        k = parent
    heap[k] = node
    place[node] = k


@compiled
def sift_down(heap, place, distance, size):
    """Move the node at the root of the heap away from it while one of its children is nearer."""
    node = heap[0]
    near = distance[node]
    k = 0
    while True:
        child = 2 * k + 1
        if child >= size:
            break
        if child + 1 < size and distance[heap[child + 1]] < distance[heap[child]]:
            child += 1
        below = heap[child]
        if distance[below] >= near:
            break
        heap[k] = below
        place[below] = k
        k = child
    heap[k] = node
    place[node] = k


@compiled
def shortest_tree(origin, first, out_edge, out_head, first_thru, time, distance, last_edge, heap, place):
    """Fill `distance` (infinite where there is no path) and `last_edge`, the link by which the cheapest path arrives.

    The links that leave node `u` are `out_edge[first[u]:first[u + 1]]`, their heads stand in `out_head`. `heap` and `place`
    are room to work in.
    """
    distance[:] = np.inf
    place[:] = -1
    last_edge[:] = -1
    distance[origin] = 0.0
    heap[0] = origin
    place[origin] = 0
    size = 1
    while size > 0:
        node = heap[0]
        size -= 1
        if size > 0:
            heap[0] = heap[size]
            sift_down(heap, place, distance, size)
        place[node] = -2
        if node < first_thru and node != origin:
            continue
        here = distance[node]
        for k in range(first[node], first[node + 1]):
            head = out_head[k]
            through = here + time[out_edge[k]]
            if through < distance[head] and place[head] != -2:
                distance[head] = through
                last_edge[head] = out_edge[k]
                if place[head] == -1:
                    heap[size] = head
                    place[head] = size
                    size += 1
                sift_up(heap, place, distance, place[head])


@compiled
def potentials(origins, first, out_edge, out_head, first_thru, time, out):
    """The times from every origin to all nodes."""
    nodes = first.shape[0] - 1
    last_edge = np.empty(nodes, dtype=np.int64)
    heap = np.empty(nodes, dtype=np.int64)
    place = np.empty(nodes, dtype=np.int64)
    for o in range(origins.shape[0]):
        shortest_tree(origins[o], first, out_edge, out_head, first_thru, time, out[o], last_edge, heap, place)
