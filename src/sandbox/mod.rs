//! bubblewrap: plan, render, spawn.
