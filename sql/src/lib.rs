//! Flink's SQL, planned on DataFusion, down to a graph that the runtime runs.
//!
//! A script goes through these rooms, in this order:
//!
//! 1. [`parse_script`] cuts it into statements and parses each (`script`, `parse`, `create_table`; `dialect` and `types` say what Flink's words are).
//!    Parsing and planning have a thread with a large stack (`stack`); `limits` bounds how deep a statement may be.
//!    Nothing is looked up.
//!    `foreign` answers what Flink's clients and catalogs have and Coulee does not.
//! 2. [`Session::execute`] keeps settings (`settings`), tables and views (`catalog`, `define`; `kept` are those of other scripts), and answers `SHOW` and `DESCRIBE` (`show`).
//! 3. A query is resolved by DataFusion's planner over the catalog (`planner`, `names`, `functions`), where `TUMBLE` becomes a projection
//!    (`table_function`, `group_window`) and operands must be of one kind (`operands`);
//!    `insert` shapes it to the table it goes to; `optimize` types and optimises it.
//!    Types, casts and operators are Flink's (`flink_types`), and so are aggregates (`aggregates`).
//! 4. `stream_plan` says what the query is as a stream, node by node, and `translate` is what its nodes make a
//!    [`Graph`](coulee_runtime::graph::Graph) with. `lineage` tells them which columns are event times and
//!    which bound a window, `rank_bounds` which conditions make a rank keep a few rows, `scans` reads each table once, `identity` (and a `hint`) names operators; `options_hint` are the options of a table for one statement. What cannot run as a stream is refused by `refuse`.
//! 5. `explain` prints the graph.
//!
//! Errors say what they are about (`error`, `faults`); `spans` finds where that stands in the SQL.
//!
//! The crate knows no connector: it calls those that it is given, through the runtime's traits. It opens no file and no socket.

mod added_time;
mod aggregates;
mod alter_table;
mod as_of;
mod cast_names;
mod catalog;
mod correlated_keys;
mod create_table;
mod create_text;
mod current_watermark;
mod define;
mod dialect;
mod distinct_from;
mod encoding;
mod error;
mod explain;
mod faults;
mod fetch;
mod files;
mod flink_types;
mod foreign;
mod functions;
mod fuse;
mod group_window;
mod grouping_sets;
mod hint;
mod identity;
mod insert;
mod join_time;
mod kept;
mod lateral_top;
mod like;
mod limits;
mod lineage;
mod look_ahead;
mod names;
mod not_in;
mod op_codes;
mod operands;
mod optimize;
mod options_hint;
mod over_time;
mod parse;
mod parser_fault;
mod planner;
mod rank_bounds;
mod refuse;
mod row_in;
mod scalar_subqueries;
mod scans;
mod script;
mod session;
mod settings;
mod show;
mod spans;
mod stack;
mod statement;
mod stream_plan;
mod subquery_values;
mod table_arguments;
mod table_as_of;
mod table_function;
mod tokens;
mod translate;
mod types;
mod unnest;
mod versioned_view;
mod window_assign;
mod words;
mod zone;

pub use encoding::script_text;
pub use error::SqlError;
pub use kept::{CatalogChange, Definition, Definitions};
pub use script::parse_script;
pub use session::{Effect, PlannedJob, QuerySink, Session, SessionDefaults};
pub use settings::{JobOptions, RestartStrategy, SETTINGS, Settings, SnapshotSettings};
pub use statement::{Relation, Statement};
