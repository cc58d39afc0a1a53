//! Tests of the link on the heap.
