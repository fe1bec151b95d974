//! Sizes that hurt: depth, width, numbers of layers and of live nodes.
