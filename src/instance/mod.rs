//! Running containers: ids, directories, state.
