//! Executes `CREATE TABLE`: checks columns, options and the watermark, and asks the connector.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use coulee_runtime::options::{Options, nearest};
use coulee_runtime::table::{COMMON_OPTIONS, Connector, Connectors, TableSpec};
use coulee_runtime::window::assign::millisecond_of;
use coulee_runtime::{OptionPart, Subject};
use datafusion_common::tree_node::TreeNodeRecursion;
use datafusion_common::{Column, DFSchema, TableReference};
use datafusion_expr::{Cast, Expr, ExprSchemable};
use sqlparser::ast::Ident;

use crate::catalog::{Declaration, Table, TableColumn, TableEventTime};
use crate::error::{Fault, Result};
use crate::faults::fault;
use crate::flink_types::is_timestamp;
use crate::foreign;
use crate::functions::varying;
use crate::lineage::without_qualifiers;
use crate::planner::Planner;
use crate::statement::{ColumnDef, ColumnDefKind, CreateTable, WatermarkDef};
use crate::types::{timestamp_ltz, type_name};

/// The option that names the columns of a record's key.
const KEY_FIELDS: &str = "key.fields";
/// The option of connectors whose rows replace each other by the primary key.
const KEY_FORMAT: &str = "key.format";

/// Resolves the statement to a table, and creates what its connector creates. Answers what of the statement has no effect, too.
pub(crate) fn define(
    create: &CreateTable,
    declaration: Declaration,
    planner: &Planner<'_>,
    connectors: &Connectors,
    job: &str,
) -> Result<(Table, Vec<String>)> {
    let name = create.name.value.as_str();
    check_columns(create)?;
    let declared = with_key_not_null(create);
    let (schema, metadata_columns, read_only) = physical(&declared);
    let physical =
        DFSchema::try_from_qualified_schema(TableReference::bare(name), &schema).map_err(|error| fault(&error))?;
    let columns = declared.iter().map(|column| resolve(column, planner, &physical)).collect::<Result<Vec<_>>>()?;
    let event_time =
        create.watermark.as_ref().map(|watermark| event_time(watermark, &columns, name, planner)).transpose()?;
    let (common, own) = split_options(create)?;
    let connector_name = common.get("connector").unwrap_or("stream").to_owned();
    let named = Some(create.name.span);
    let connector = connectors.get(&connector_name).map_err(|error| match foreign::connector(&connector_name) {
        Some(help) => {
            let fault = Fault::new(format!("there is no connector '{connector_name}' in this version"));
            fault.about(value_of("connector")).or_at(named).help(help)
        }
        None => Fault::from(error).or_at(named),
    })?;
    let connector = connector.clone();
    if let Some(column) = create.partitioned_by.first().filter(|_| !connector.takes_partitions()) {
        let message = format!("table '{name}': '{connector_name}' has no partitions");
        let help =
            "leave PARTITIONED BY out; a stream is spread over shards by DISTRIBUTED BY HASH(column) INTO n BUCKETS";
        return Err(Fault::new(message).at(column.span).help(help));
    }
    let mut notes = Vec::new();
    let options = with_distribution(create, own, connector.as_ref())?;
    let options = with_primary_key(create, options, connector.as_ref(), &connector_name, &mut notes);
    let spec = TableSpec {
        name: name.to_owned(),
        schema: Arc::new(schema),
        metadata_columns,
        primary_key: create.primary_key.iter().map(|column| column.value.clone()).collect(),
        partitioned_by: create.partitioned_by.iter().map(|column| column.value.clone()).collect(),
        options,
        created_by: job.to_owned(),
    };
    connector.create(&spec).map_err(|error| Fault::from(error).or_at(named))?;
    let unused = COMMON_OPTIONS.iter().map(|option| option.key).filter(|key| key.starts_with("scan.watermark."));
    let unused = unused.filter(|key| event_time.is_none() && common.is_given(key));
    notes.extend(unused.map(|key| format!("table '{name}': '{key}' has no effect, as the table has no WATERMARK")));
    let create = create.clone();
    let table = Table { columns, event_time, common, spec, read_only, connector, create, declaration };
    Ok((table, notes))
}

fn value_of(key: &str) -> Subject {
    Subject::Option { table: None, key: key.to_owned(), part: OptionPart::Value }
}

/// The columns as they are declared; those of the primary key are NOT NULL, as in Flink.
fn with_key_not_null(create: &CreateTable) -> Vec<ColumnDef> {
    let mut columns = create.columns.clone();
    for column in &mut columns {
        let is_key = create.primary_key.iter().any(|key| key.value == column.name.value);
        if let ColumnDefKind::Physical { nullable, .. } | ColumnDefKind::Metadata { nullable, .. } = &mut column.kind {
            *nullable &= !is_key;
        }
    }
    columns
}

/// The primary key is the key of a stream's records, unless something else is said to be it.
fn with_primary_key(
    create: &CreateTable,
    mut options: BTreeMap<String, String>,
    connector: &dyn Connector,
    connector_name: &str,
    notes: &mut Vec<String>,
) -> BTreeMap<String, String> {
    if create.primary_key.is_empty() {
        return options;
    }
    let takes = |key: &str| connector.options().iter().any(|option| option.key == key);
    if takes(KEY_FORMAT) {
        return options;
    }
    if takes(KEY_FIELDS) {
        let columns: Vec<&str> = create.primary_key.iter().map(|column| column.value.as_str()).collect();
        options.entry(KEY_FIELDS.to_owned()).or_insert_with(|| columns.join(";"));
    } else {
        notes.push(format!(
            "table '{}': the PRIMARY KEY makes its columns NOT NULL and does nothing else: '{connector_name}' neither checks nor uses it",
            create.name.value
        ));
    }
    options
}

/// Names are unique, and those that clauses use exist.
fn check_columns(create: &CreateTable) -> Result<()> {
    for (index, column) in create.columns.iter().enumerate() {
        if create.columns[..index].iter().any(|earlier| earlier.name.value == column.name.value) {
            return Err(Fault::new(format!("column '{}' is declared twice", column.name.value)).at(column.name.span));
        }
    }
    let distributed = create.distribution.iter().flat_map(|distribution| &distribution.columns);
    for name in create.primary_key.iter().chain(&create.partitioned_by).chain(distributed) {
        let Some(column) = create.columns.iter().find(|column| column.name.value == name.value) else {
            return Err(unknown(name, &create.columns));
        };
        if matches!(column.kind, ColumnDefKind::Computed(_)) {
            let message = format!("'{}' is computed, and a computed column is not stored", name.value);
            return Err(Fault::new(message).at(name.span));
        }
    }
    Ok(())
}

fn unknown(name: &Ident, columns: &[ColumnDef]) -> Fault {
    let names: Vec<&str> = columns.iter().map(|column| column.name.value.as_str()).collect();
    let fault = Fault::new(format!("unknown column '{}'", name.value)).at(name.span);
    match nearest(&name.value, &names) {
        Some(near) => fault.help(format!("did you mean '{near}'?")),
        None => fault.help(format!("columns: {}", names.join(", "))),
    }
}

/// What the connector stores or decodes: schema, metadata keys, and which columns are only read.
fn physical(columns: &[ColumnDef]) -> (Schema, BTreeMap<String, String>, Vec<usize>) {
    let (mut fields, mut metadata, mut read_only) = (Vec::new(), BTreeMap::new(), Vec::new());
    for column in columns {
        let name = &column.name.value;
        match &column.kind {
            ColumnDefKind::Physical { data_type, nullable } => {
                fields.push(Field::new(name, data_type.clone(), *nullable))
            }
            ColumnDefKind::Metadata { data_type, nullable, key, is_virtual } => {
                metadata.insert(name.clone(), key.clone().unwrap_or_else(|| name.clone()));
                if *is_virtual {
                    read_only.push(fields.len());
                }
                fields.push(Field::new(name, data_type.clone(), *nullable));
            }
            ColumnDefKind::Computed(_) => {}
        }
    }
    (Schema::new(fields), metadata, read_only)
}

fn resolve(column: &ColumnDef, planner: &Planner<'_>, physical: &DFSchema) -> Result<TableColumn> {
    let name = column.name.value.clone();
    Ok(match &column.kind {
        ColumnDefKind::Physical { data_type, nullable } => TableColumn {
            name,
            data_type: data_type.clone(),
            nullable: *nullable,
            extras: String::new(),
            computed: None,
        },
        ColumnDefKind::Metadata { data_type, nullable, key, is_virtual } => {
            let key = key.as_ref().map(|key| format!(" FROM '{key}'")).unwrap_or_default();
            let extras = format!("METADATA{key}{}", if *is_virtual { " VIRTUAL" } else { "" });
            TableColumn { name, data_type: data_type.clone(), nullable: *nullable, extras, computed: None }
        }
        ColumnDefKind::Computed(parsed) => {
            let expr = planner.expr(parsed, physical)?;
            let data_type = expr.get_type(physical).map_err(|error| fault(&error))?;
            let nullable = expr.nullable(physical).map_err(|error| fault(&error))?;
            TableColumn { name, data_type, nullable, extras: format!("AS {parsed}"), computed: Some(expr) }
        }
    })
}

/// Checks the watermark and rewrites it over the physical columns.
fn event_time(
    watermark: &WatermarkDef,
    columns: &[TableColumn],
    table: &str,
    planner: &Planner<'_>,
) -> Result<TableEventTime> {
    let name = &watermark.column;
    let Some(column) = columns.iter().find(|column| column.name == name.value) else {
        let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        let fault = Fault::new(format!("unknown column '{}'", name.value)).at(name.span);
        return Err(match nearest(&name.value, &names) {
            Some(near) => fault.help(format!("did you mean '{near}'?")),
            None => fault.help(format!("columns: {}", names.join(", "))),
        });
    };
    if !is_timestamp(&column.data_type) {
        let message = format!(
            "the event time '{}' is {}, expected TIMESTAMP or TIMESTAMP_LTZ",
            name.value,
            type_name(&column.data_type)
        );
        let help = format!(
            "declare it TIMESTAMP(3) or TIMESTAMP_LTZ(3), or compute one: {0}_ts AS CAST({0} AS TIMESTAMP(3))",
            name.value
        );
        return Err(Fault::new(message).at(name.span).help(help));
    }
    if watermark.text.to_uppercase().starts_with("SOURCE_WATERMARK") {
        return Err(Fault::new("SOURCE_WATERMARK() asks the source for watermarks of its own, and no source has any")
            .at(watermark.span)
            .help(format!("say how late rows may be: {} - INTERVAL '5' SECOND", name.value)));
    }
    let fields: Vec<Field> =
        columns.iter().map(|column| Field::new(&column.name, column.data_type.clone(), column.nullable)).collect();
    let schema = DFSchema::try_from_qualified_schema(TableReference::bare(table), &Schema::new(fields))
        .map_err(|error| fault(&error))?;
    let expr = planner.expr(&watermark.expr, &schema).map_err(|fault| fault.or_at(Some(watermark.span)))?;
    if let Some(function) = column.computed.iter().chain([&expr]).find_map(varying) {
        let message = format!("an event time is in the row: {function} has another value when the row is read again");
        let help = "leave the WATERMARK out, and use a column of PROCTIME() for windows of processing time";
        return Err(Fault::new(message).at(name.span).help(help));
    }
    let expr = in_millis(expr, column).map_err(|error| fault(&error))?;
    let data_type = expr.get_type(&schema).map_err(|error| fault(&error))?;
    if !is_timestamp(&data_type) {
        let message = format!("the watermark is {}, expected TIMESTAMP or TIMESTAMP_LTZ", type_name(&data_type));
        let help = format!("write for example {0} - INTERVAL '5' SECOND", name.value);
        return Err(Fault::new(message).at(watermark.span).help(help));
    }
    let expr = if is_in_millis(&data_type) { expr } else { millisecond_of(expr) };
    let own = Expr::Column(Column::new_unqualified(&name.value));
    let value = column.computed.as_ref().map_or(own, without_qualifiers);
    Ok(TableEventTime {
        column: name.value.clone(),
        value,
        watermark: over_physical(&expr, columns)?,
        text: watermark.text.clone(),
    })
}

fn is_in_millis(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Timestamp(TimeUnit::Millisecond, _))
}

/// The watermark over the milliseconds of an event time with more digits: event time counts in them, and a time near the end
/// of the range of nanoseconds has one a few seconds before it.
fn in_millis(watermark: Expr, column: &TableColumn) -> datafusion_common::Result<Expr> {
    use datafusion_common::tree_node::{Transformed, TransformedResult, TreeNode};
    if is_in_millis(&column.data_type) {
        return Ok(watermark);
    }
    let is_local = matches!(column.data_type, DataType::Timestamp(_, Some(_)));
    let replace = |expr: Expr| {
        Ok(match &expr {
            Expr::Column(found) if found.name == column.name => {
                let millis = millisecond_of(expr);
                let millis = if is_local { Expr::Cast(Cast::new(Box::new(millis), timestamp_ltz())) } else { millis };
                Transformed::new(millis, true, TreeNodeRecursion::Jump)
            }
            _ => Transformed::no(expr),
        })
    };
    watermark.transform_down(replace).data()
}

/// Puts what computed columns are in their place.
fn over_physical(expr: &Expr, columns: &[TableColumn]) -> Result<Expr> {
    use datafusion_common::tree_node::{Transformed, TransformedResult, TreeNode};
    let replace = |expr: Expr| {
        let Expr::Column(column) = &expr else { return Ok(Transformed::no(expr)) };
        let computed = columns.iter().find(|known| known.name == column.name).and_then(|known| known.computed.as_ref());
        Ok(match computed {
            Some(computed) => Transformed::yes(computed.clone()),
            None => Transformed::no(expr),
        })
    };
    let replaced = expr.clone().transform_up(replace).data().map_err(|error| fault(&error))?;
    Ok(without_qualifiers(&replaced))
}

/// The options that every table has, checked, and the connector's own.
fn split_options(create: &CreateTable) -> Result<(Options, BTreeMap<String, String>)> {
    let (mut common, mut own) = (BTreeMap::new(), BTreeMap::new());
    for (key, value) in &create.options {
        let is_common = COMMON_OPTIONS.iter().any(|spec| spec.key == key.value);
        let target = if is_common { &mut common } else { &mut own };
        target.insert(key.value.clone(), value.value.clone());
    }
    Ok((Options::of_table(&create.name.value, COMMON_OPTIONS.iter().copied(), &common)?, own))
}

/// `DISTRIBUTED BY` is another way to write two options of a stream.
fn with_distribution(
    create: &CreateTable,
    mut options: BTreeMap<String, String>,
    connector: &dyn Connector,
) -> Result<BTreeMap<String, String>> {
    let Some(distribution) = &create.distribution else { return Ok(options) };
    if !connector.options().iter().any(|option| option.key == KEY_FIELDS) {
        let message = format!("table '{}': '{}' has no buckets", create.name.value, connector.name());
        return Err(Fault::new(message).or_clause(&["DISTRIBUTED"]).help("leave DISTRIBUTED BY out"));
    }
    let columns: Vec<&str> = distribution.columns.iter().map(|column| column.value.as_str()).collect();
    let said = [
        (KEY_FIELDS, (!columns.is_empty()).then(|| columns.join(";"))),
        ("shards", distribution.buckets.map(|buckets| buckets.to_string())),
    ];
    for (key, value) in said {
        let Some(value) = value else { continue };
        if let Some((written, _)) = create.options.iter().find(|(known, _)| known.value == key) {
            let message = format!("option '{key}' says what DISTRIBUTED BY says already");
            return Err(Fault::new(message).at(written.span).help("leave one of them out"));
        }
        options.insert(key.to_owned(), value);
    }
    Ok(options)
}
