"""Dijkstra's algorithm with a binary heap, compiled."""

import numpy as np

from implicit_l2o._numba import compiled


@compiled
def _sift_up(heap, place, distance, k):
    """Move the node at position `k` of the heap towards the root while it is nearer than its parent."""
    node = heap[k]
    while k > 0:
        parent = (k - 1) // 2
        if distance[heap[parent]] <= distance[node]:
            break
        heap[k] = heap[parent]
        place[heap[k]] = k
        k = parent
    heap[k] = node
    place[node] = k


@compiled
def _sift_down(heap, place, distance, size):
    """Move the node at the root of the heap away from it while one of its children is nearer."""
    node = heap[0]
    k = 0
    while True:
        child = 2 * k + 1
        if child >= size:
            break
        if child + 1 < size and distance[heap[child + 1]] < distance[heap[child]]:
            child += 1
        if distance[heap[child]] >= distance[node]:
            break
        heap[k] = heap[child]
        place[heap[k]] = k
        k = child
    heap[k] = node
    place[node] = k


@compiled
def dijkstra(costs, first, order, tails, heads, source, target, paths):
    """Mark the arcs of each sample's cheapest path in `paths`, which is all zero; the number of paths that were found.

    The arcs that leave node `u` are `order[first[u]:first[u + 1]]`. The search ends when the target leaves the heap.
    """
    n_nodes = first.shape[0] - 1
    distance = np.empty(n_nodes)
    last_arc = np.empty(n_nodes, dtype=np.int64)
    heap = np.empty(n_nodes, dtype=np.int64)
    place = np.empty(n_nodes, dtype=np.int64)  # in the heap; -1: not seen yet, -2: final
    for sample in range(costs.shape[0]):
        distance[:] = np.inf
        place[:] = -1
        distance[source] = 0.0
        last_arc[source] = -1
        heap[0] = source
        place[source] = 0
        size = 1
        while size > 0:
            node = heap[0]
            place[node] = -2
            if node == target:
                break
            size -= 1
            if size > 0:
                heap[0] = heap[size]
                _sift_down(heap, place, distance, size)
            for k in range(first[node], first[node + 1]):
                arc = order[k]
                head = heads[arc]
                through = distance[node] + costs[sample, arc]
                if place[head] != -2 and through < distance[head]:
                    distance[head] = through
                    last_arc[head] = arc
                    if place[head] == -1:
                        heap[size] = head
                        place[head] = size
                        size += 1
                    _sift_up(heap, place, distance, place[head])
        if place[target] != -2:
            return sample
        node = target
        while node != source:
            arc = last_arc[node]
            paths[sample, arc] = 1.0
            node = tails[arc]
    return costs.shape[0]
