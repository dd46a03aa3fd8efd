//! Whole jobs under test.

mod simulation;
