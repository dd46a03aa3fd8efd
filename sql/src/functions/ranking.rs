//! `ROW_NUMBER()`, `RANK()` and `DENSE_RANK()`: for the planner only, as the stream plan turns them into an operator.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use coulee_runtime::rank::RankFunction;
use datafusion_common::{Result, internal_err};
use datafusion_expr::function::{PartitionEvaluatorArgs, WindowUDFFieldArgs};
use datafusion_expr::{
    Expr, PartitionEvaluator, Signature, Volatility, WindowFunctionDefinition, WindowUDF, WindowUDFImpl,
};

const FUNCTIONS: [RankFunction; 3] = [RankFunction::RowNumber, RankFunction::Rank, RankFunction::DenseRank];

/// The function of a name in small letters.
pub(crate) fn ranking(name: &str) -> Option<Arc<WindowUDF>> {
    let function = FUNCTIONS.into_iter().find(|function| function.name().eq_ignore_ascii_case(name))?;
    let signature = Signature::nullary(Volatility::Immutable);
    Some(Arc::new(WindowUDF::new_from_impl(Ranking { name: name.to_owned(), function: function.into(), signature })))
}

/// Which of the functions an expression calls.
pub(crate) fn ranking_of(function: &WindowFunctionDefinition) -> Option<RankFunction> {
    let WindowFunctionDefinition::WindowUDF(function) = function else { return None };
    function.inner().downcast_ref::<Ranking>().map(|ranking| ranking.function.0)
}

/// What an expression is without its aliases.
pub(crate) fn without_alias(expr: &Expr) -> &Expr {
    match expr {
        Expr::Alias(alias) => without_alias(&alias.expr),
        other => other,
    }
}

/// Hashed by its name.
#[derive(Debug, PartialEq, Eq)]
struct ByName(RankFunction);

impl From<RankFunction> for ByName {
    fn from(function: RankFunction) -> Self {
        ByName(function)
    }
}

impl std::hash::Hash for ByName {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.name().hash(state);
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Ranking {
    name: String,
    function: ByName,
    signature: Signature,
}

impl WindowUDFImpl for Ranking {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn partition_evaluator(&self, _: PartitionEvaluatorArgs) -> Result<Box<dyn PartitionEvaluator>> {
        internal_err!("{} is evaluated by an operator of its own", self.function.0.name())
    }

    fn field(&self, arguments: WindowUDFFieldArgs) -> Result<FieldRef> {
        Ok(Arc::new(Field::new(arguments.name(), DataType::Int64, true)))
    }
}
