//! Failures that the generator found, and cases that it would take long to find.
