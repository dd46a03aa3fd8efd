//! What is said of a function that is not there.

/// Flink's functions that are not there yet.
const MISSING: &[&str] = &[
    "TYPEOF",
    "JSON",
    "JSON_LENGTH",
    "OVERLAPS",
    "GROUP_ID",
    "GROUPING_ID",
    "CURRENT_DATABASE",
    "BITAND",
    "BITOR",
    "PARSE_JSON",
    "TRY_PARSE_JSON",
    "OBJECT_OF",
    "OBJECT_UPDATE",
    "SOURCE_WATERMARK",
    "ML_PREDICT",
];

/// Functions that take an OVER clause alone, and how they are written.
const WITH_OVER: &[(&str, &str)] = &[
    ("lag", "write LAG(value) OVER (PARTITION BY key ORDER BY time)"),
    ("row_number", "write ROW_NUMBER() OVER (PARTITION BY key ORDER BY time)"),
    ("rank", "write RANK() OVER (PARTITION BY key ORDER BY time)"),
    ("dense_rank", "write DENSE_RANK() OVER (PARTITION BY key ORDER BY time)"),
    ("lead", "write LEAD(value) OVER (PARTITION BY key ORDER BY column)"),
    ("nth_value", "write LAG(value, rows) OVER (PARTITION BY key ORDER BY time)"),
    ("ntile", "write NTILE(4) OVER (PARTITION BY key ORDER BY column)"),
    ("percent_rank", "write PERCENT_RANK() OVER (PARTITION BY key ORDER BY column)"),
    ("cume_dist", "write CUME_DIST() OVER (PARTITION BY key ORDER BY column)"),
];

/// What other engines call Flink's functions.
const INSTEAD: &[(&str, &str)] = &[
    ("length", "CHAR_LENGTH(text)"),
    ("character_length", "CHAR_LENGTH(text)"),
    ("octet_length", "CHAR_LENGTH(text)"),
    ("strpos", "INSTR(text, part)"),
    ("split_part", "SPLIT_INDEX(text, separator, index)"),
    ("substr_index", "SPLIT_INDEX(text, separator, index)"),
    ("starts_with", "STARTSWITH(text, part)"),
    ("ends_with", "ENDSWITH(text, part)"),
    ("contains", "text LIKE '%part%'"),
    ("regexp_like", "REGEXP(text, expression)"),
    ("regexp_match", "REGEXP_EXTRACT(text, expression)"),
    ("date_trunc", "FLOOR(timestamp TO unit)"),
    ("date_bin", "FLOOR(timestamp TO unit)"),
    ("date_part", "EXTRACT(unit FROM timestamp)"),
    ("datepart", "EXTRACT(unit FROM timestamp)"),
    ("to_char", "DATE_FORMAT(timestamp, pattern)"),
    ("strftime", "DATE_FORMAT(timestamp, pattern)"),
    ("to_unixtime", "UNIX_TIMESTAMP(text), or EXTRACT(EPOCH FROM timestamp)"),
    ("to_timestamp_millis", "TO_TIMESTAMP_LTZ(number, 3)"),
    ("to_timestamp_seconds", "TO_TIMESTAMP_LTZ(number, 0)"),
    ("datediff", "TIMESTAMPDIFF(DAY, from, to)"),
    ("date_add", "TIMESTAMPADD(DAY, number, date)"),
    ("date_sub", "TIMESTAMPADD(DAY, -number, date)"),
    ("add_months", "TIMESTAMPADD(MONTH, number, date)"),
    ("make_date", "TO_DATE(text, pattern)"),
    ("nvl", "COALESCE(value, other)"),
    ("isnull", "value IS NULL"),
    ("nvl2", "CASE WHEN value IS NULL THEN … END"),
    ("iff", "IF(condition, value, other)"),
    ("trunc", "TRUNCATE(number, digits)"),
    ("pow", "POWER(base, exponent)"),
    ("signum", "SIGN(number)"),
    ("isnan", "number <> number"),
    ("to_hex", "HEX(number)"),
    ("array_length", "CARDINALITY(array)"),
    ("cardinality_of", "CARDINALITY(array)"),
    ("array_to_string", "ARRAY_JOIN(array, separator)"),
    ("random", "RAND()"),
    ("gen_random_uuid", "UUID()"),
    ("today", "CURRENT_DATE"),
    ("getdate", "CURRENT_TIMESTAMP"),
    ("sysdate", "CURRENT_TIMESTAMP"),
    ("get_json_object", "JSON_VALUE(text, path)"),
    ("json_extract", "JSON_VALUE(text, path)"),
];

/// What to do instead of calling a function that is not there, unless nothing is known of the name.
pub(crate) fn unknown(name: &str) -> Option<String> {
    let lower = name.to_lowercase();
    if let Some((_, advice)) = WITH_OVER.iter().find(|(function, _)| *function == lower) {
        return Some((*advice).to_owned());
    }
    if let Some((_, instead)) = INSTEAD.iter().find(|(other, _)| *other == lower) {
        return Some(format!("Flink has no function of that name: write {instead}"));
    }
    if MISSING.contains(&name.to_uppercase().as_str()) {
        return Some(format!("Flink's {} is not supported yet", name.to_uppercase()));
    }
    let is_datafusions = datafusion_functions::all_default_functions()
        .iter()
        .any(|function| function.name() == lower || function.aliases().contains(&lower));
    is_datafusions.then(|| "Flink has no function of that name; SHOW FUNCTIONS lists what there is".to_owned())
}
