//! The session's time zone (`SET 'table.local-time-zone'`): in it a TIMESTAMP_LTZ, which is an instant, is read and written as local time.
//!
//! Instants are held in UTC, and Arrow converts them as UTC does. In another zone, conversions between an instant and local time get the zone put in:
//! once at every place where an expression is resolved, so that what runs knows no session.

use std::str::FromStr;
use std::sync::Arc;

use arrow::array::timezone::Tz;
use arrow::datatypes::{DataType, TimeUnit};
use datafusion_common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion_common::{DFSchema, Result};
use datafusion_expr::expr::{Cast, TryCast};
use datafusion_expr::expr_rewriter::NamePreserver;
use datafusion_expr::{Expr, ExprSchemable, LogicalPlan};

/// What Flink's documentation calls the zone of a session, and Arrow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Zone(Arc<str>);

const UTC: &[&str] = &["UTC", "GMT", "Z", "UT", "Etc/UTC", "Etc/GMT", "Etc/UCT", "Zulu", "Universal", "+00:00"];

impl Zone {
    /// Reads a zone by its name (`Europe/Berlin`) or offset (`GMT+08:00`, `UTC-3`, `+01:00`): `None` is UTC.
    ///
    /// # Errors
    /// When there is no such zone.
    pub fn parse(text: &str) -> std::result::Result<Option<Self>, ()> {
        let text = text.trim();
        let offset = ["GMT", "UTC", "UT"].iter().find_map(|name| text.strip_prefix(name)).unwrap_or(text);
        let name = match offset.strip_prefix(['+', '-']).map(|digits| (&offset[..1], digits)) {
            Some((sign, digits)) => {
                let (hours, minutes) = digits.split_once(':').unwrap_or((digits, "00"));
                let (hours, minutes) = (hours.parse::<u8>().map_err(drop)?, minutes.parse::<u8>().map_err(drop)?);
                if hours > 18 || minutes > 59 {
                    return Err(());
                }
                format!("{}{hours:02}:{minutes:02}", if hours == 0 && minutes == 0 { "+" } else { sign })
            }
            None => text.to_owned(),
        };
        if UTC.contains(&name.as_str()) {
            return Ok(None);
        }
        Tz::from_str(&name).map(|_| Some(Zone(name.into()))).map_err(drop)
    }

    /// Its name in the time zone database, or its offset (`-08:00`).
    pub fn name(&self) -> &str {
        &self.0
    }

    fn timestamp(&self, unit: TimeUnit) -> DataType {
        DataType::Timestamp(unit, Some(self.0.clone()))
    }

    /// Puts the zone into the conversions of a plan.
    ///
    /// # Errors
    /// When the plan's columns do not resolve: a fault of ours.
    pub fn put_into(&self, plan: LogicalPlan) -> Result<LogicalPlan> {
        let visit = |node: LogicalPlan| {
            let inputs = node.inputs();
            let schema = inputs.iter().try_fold(DFSchema::empty(), |all, input| all.join(input.schema()))?;
            // Columns of an aggregation are named after their expressions.
            let names = NamePreserver::new(&node);
            let changed = node.map_expressions(|expr| {
                let name = names.save(&expr);
                Ok(self.rewrite(expr, &schema)?.update_data(|expr| name.restore(expr)))
            })?;
            match changed.transformed {
                true => changed.map_data(LogicalPlan::recompute_schema),
                false => Ok(changed),
            }
        };
        plan.transform_up(visit).data()
    }

    /// Puts the zone into the conversions of an expression over these columns.
    ///
    /// # Errors
    /// Never, but for faults of ours.
    pub fn put_into_expr(&self, expr: Expr, schema: &DFSchema) -> Result<Expr> {
        self.rewrite(expr, schema).data()
    }

    fn rewrite(&self, expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
        expr.transform_up(|expr| {
            let (inner, to) = match &expr {
                Expr::Cast(cast) => (&cast.expr, cast.field.data_type()),
                Expr::TryCast(cast) => (&cast.expr, cast.field.data_type()),
                _ => return Ok(Transformed::no(expr)),
            };
            // What does not resolve yet is met again once it is typed.
            let Ok(from) = inner.get_type(schema) else { return Ok(Transformed::no(expr)) };
            let Some(through) = self.through(&from, to, inner) else { return Ok(Transformed::no(expr)) };
            Ok(Transformed::yes(match expr {
                Expr::Cast(cast) => Expr::Cast(Cast { expr: Box::new(through), ..cast }),
                Expr::TryCast(cast) => Expr::TryCast(TryCast { expr: Box::new(through), ..cast }),
                other => other,
            }))
        })
    }

    /// What is to be converted in place of `inner`; `None` when the zone does not matter, or is in already.
    fn through(&self, from: &DataType, to: &DataType, inner: &Expr) -> Option<Expr> {
        let cast = |to: DataType| Expr::Cast(Cast::new(Box::new(inner.clone()), to));
        let is_own = |zone: &Arc<str>| *zone == self.0;
        match (from, to) {
            (DataType::Timestamp(unit, Some(zone)), DataType::Timestamp(_, None))
            | (DataType::Timestamp(unit, Some(zone)), DataType::Date32 | DataType::Time32(_) | DataType::Time64(_))
            | (DataType::Timestamp(unit, Some(zone)), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
                if !is_own(zone) =>
            {
                let local = datafusion_functions::datetime::to_local_time();
                Some(local.call(vec![cast(self.timestamp(*unit))]))
            }
            (
                DataType::Timestamp(_, None)
                | DataType::Date32
                | DataType::Utf8
                | DataType::LargeUtf8
                | DataType::Utf8View,
                DataType::Timestamp(unit, Some(zone)),
            ) if !is_own(zone) => Some(cast(self.timestamp(*unit))),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_have_names_and_offsets() {
        let parse = |text: &str| Zone::parse(text).map(|zone| zone.map(|zone| zone.0.to_string()));
        for text in ["UTC", "GMT", "Z", "Etc/UTC", "+00:00", "GMT+0", "UTC-00:00", " UTC "] {
            assert_eq!(parse(text), Ok(None), "{text}");
        }
        for (text, zone) in [
            ("Europe/Berlin", "Europe/Berlin"),
            ("America/Los_Angeles", "America/Los_Angeles"),
            ("GMT-08:00", "-08:00"),
            ("UTC+3", "+03:00"),
            ("+05:30", "+05:30"),
        ] {
            assert_eq!(parse(text), Ok(Some(zone.to_owned())), "{text}");
        }
        for text in ["", "Mars/Olympus", "+25:00", "GMT+x", "default"] {
            assert_eq!(parse(text), Err(()), "{text}");
        }
    }
}
