//! SUM, AVG and LISTAGG of rows that are taken back, in the runtime's updating aggregation.

use std::sync::Arc;

use arrow::array::{ArrayRef, Decimal128Array, Float64Array, Int8Array, Int64Array, StringArray};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use coulee_model::SubtaskIndex;
use coulee_runtime::Batch;
use coulee_runtime::RowKind::{self, Delete, Insert, UpdateAfter, UpdateBefore};
use coulee_runtime::graph::{Lineage, OperatorFactory, Port};
use coulee_runtime::group_aggregate::{GroupAggregateSpec, group_aggregate};
use coulee_runtime::group_table::Aggregate;
use coulee_runtime::harness::{Harness, Input, changelog_lines};
use datafusion_common::ScalarValue;
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::aggregate::AggregateExprBuilder;
use datafusion_physical_expr::expressions::{Column, Literal};

/// A number, a decimal in hundredths, a DOUBLE and a text.
type Row = (Option<i64>, Option<i128>, Option<f64>, Option<&'static str>);

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("n", DataType::Int64, true),
        Field::new("d", DataType::Decimal128(10, 2), true),
        Field::new("f", DataType::Float64, true),
        Field::new("s", DataType::Utf8, true),
    ]))
}

fn batch(changes: &[(RowKind, Row)]) -> Batch {
    let decimals: Decimal128Array = changes.iter().map(|(_, row)| row.1).collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(changes.iter().map(|(_, row)| row.0).collect::<Int64Array>()),
        Arc::new(decimals.with_precision_and_scale(10, 2).unwrap()),
        Arc::new(changes.iter().map(|(_, row)| row.2).collect::<Float64Array>()),
        Arc::new(changes.iter().map(|(_, row)| row.3).collect::<StringArray>()),
    ];
    let kinds: Int8Array = changes.iter().map(|(kind, _)| Some(*kind as i8)).collect();
    Batch::changes(RecordBatch::try_new(schema(), columns).unwrap(), kinds)
}

/// The aggregation without keys: function, column, whether it is DISTINCT.
fn aggregation(aggregates: &[(&str, usize, bool)]) -> Arc<dyn OperatorFactory> {
    let functions = super::all();
    let (mut fields, mut built): (Vec<FieldRef>, Vec<Aggregate>) = Default::default();
    for (index, (name, column, is_distinct)) in aggregates.iter().enumerate() {
        let input = schema();
        let mut arguments: Vec<Arc<dyn PhysicalExpr>> =
            vec![Arc::new(Column::new(input.field(*column).name(), *column))];
        if *name == "listagg" {
            arguments.push(Arc::new(Literal::new(ScalarValue::from("+"))));
        }
        let function = AggregateExprBuilder::new(functions[*name].clone(), arguments);
        let function = function.schema(input).alias(format!("a{index}")).with_distinct(*is_distinct).build().unwrap();
        fields.push(function.field());
        built.push(Aggregate { function: Arc::new(function), filter: None });
    }
    group_aggregate(GroupAggregateSpec {
        keys: Vec::new(),
        aggregates: built,
        input: schema(),
        row_of_nothing: false,
        changelog: true,
        update_before: false,
        schema: Arc::new(Schema::new(fields)),
        ttl_millis: None,
    })
}

/// The changes after each batch, with a restart behind it.
fn run(factory: Arc<dyn OperatorFactory>, batches: &[&[(RowKind, Row)]]) -> Vec<Vec<String>> {
    let folder = tempfile::tempdir().unwrap();
    let mut harness = Harness::new(factory, folder.path()).unwrap();
    let mut step = |changes: &&[(RowKind, Row)]| {
        harness.push(Input::Rows(batch(changes))).unwrap();
        harness.checkpoint().unwrap();
        harness.restart(SubtaskIndex(0), 1).unwrap();
        changelog_lines(&harness.take_batches(Port::MAIN)).unwrap()
    };
    batches.iter().map(&mut step).collect()
}

const NONE: Row = (None, None, None, None);
const ONE: Row = (Some(10), Some(150), Some(0.5), Some("x"));
const TWO: Row = (Some(25), Some(225), Some(1.5), Some("y"));

#[test]
fn sums_and_averages_are_taken_back_from_totals() {
    let factory = aggregation(&[
        ("sum", 0, false),
        ("avg", 0, false),
        ("sum", 1, false),
        ("avg", 1, false),
        ("sum", 2, false),
        ("avg", 2, false),
    ]);
    let state = factory.state(&[Lineage::named("in", schema())]).expect("it keeps state");
    assert_eq!(state.tables.len(), 1, "totals need no values beside them");
    let changes = run(
        factory,
        &[
            &[(Insert, ONE), (Insert, NONE), (Insert, TWO)],
            &[(Delete, ONE)],
            &[(UpdateBefore, TWO), (UpdateAfter, NONE)],
            &[(Insert, ONE), (Insert, ONE), (Delete, NONE)],
            &[(Delete, ONE), (Delete, NONE), (Delete, ONE)],
        ],
    );
    let expected: [&[&str]; 5] = [
        &["+I | 35 | 17.5 | 3.75 | 1.875000 | 2.0 | 1.0"],
        &["+U | 25 | 25.0 | 2.25 | 2.250000 | 1.5 | 1.5"],
        &["+U |  |  |  |  |  | "],
        &["+U | 20 | 10.0 | 3.00 | 1.500000 | 1.0 | 0.5"],
        &["-D | 20 | 10.0 | 3.00 | 1.500000 | 1.0 | 0.5"],
    ];
    assert_eq!(changes, expected);
}

#[test]
fn distinct_values_count_while_a_row_has_them_and_a_list_is_in_order() {
    let factory = aggregation(&[("sum", 0, true), ("avg", 1, true), ("count", 2, true), ("listagg", 3, false)]);
    let changes = run(
        factory,
        &[
            &[(Insert, TWO), (Insert, ONE), (Insert, NONE), (Insert, ONE)],
            &[(Delete, ONE)],
            &[(Delete, ONE)],
            &[(Delete, TWO)],
        ],
    );
    let expected: [&[&str]; 4] = [
        &["+I | 35 | 1.875000 | 2 | x+x+y"],
        &["+U | 35 | 1.875000 | 2 | x+y"],
        &["+U | 25 | 2.250000 | 1 | y"],
        &["+U |  |  | 0 | "],
    ];
    assert_eq!(changes, expected);
}
