//! The outputs of an operator.

/// Which of an operator's outputs an edge carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port(pub u8);

impl Port {
    /// The rows.
    pub const MAIN: Port = Port(0);
    /// Records that could not become rows and rows that failed, in [`rejected_schema`](crate::rejected_schema).
    pub const REJECTED: Port = Port(1);
    /// Of a windowed operator: late rows and rows without an event time, in the schema of its input.
    pub const LATE: Port = Port(2);

    /// The `index`-th side output of a function of one's own.
    pub const fn side(index: u8) -> Port {
        Port(16 + index)
    }
}
