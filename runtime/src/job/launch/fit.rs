//! Whether stored state fits a graph: compares what its operators keep with what the checkpoint's operators kept.
//!
//! | the operator's description | then |
//! | --- | --- |
//! | is the same | the job goes on |
//! | differs in what leaves the stored state valid, or nothing is stored of the operator | the job goes on, and says so |
//! | differs in what gives the stored state its meaning | the job is refused, with what was and what is |
//! | is stored, and the graph has no such operator | the job is refused, unless that state may be dropped |

use std::fmt;

use coulee_checkpoint::JobStore;
use coulee_model::{CheckpointId, OperatorId};

use super::stored::StoredJob;
use crate::graph::{Graph, Node};
use crate::state::{IfChanged, StateDescriptor};
use crate::{Error, Result};

/// The version of the descriptors in a checkpoint's record. Absent (0): a version that did not record what operators keep.
pub(super) const FORMAT: u32 = 1;

/// Why stored state does not fit a graph: the cause of the error that [`launch`](super::launch) gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateMismatch {
    /// The node of the graph whose state it is; `None` when no node is to blame.
    pub operator: Option<OperatorId>,
    /// What was and what is.
    pub message: String,
    /// What can be done.
    pub advice: String,
}

impl fmt::Display for StateMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.message, self.advice)
    }
}

impl std::error::Error for StateMismatch {}

impl From<StateMismatch> for Error {
    fn from(mismatch: StateMismatch) -> Self {
        Error::invalid(mismatch.to_string()).because(mismatch)
    }
}

/// What follows from a comparison that found nothing to refuse.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Fit {
    /// Stored operators whose state goes with the first checkpoint.
    pub(super) dropped: Vec<String>,
    /// What the user should know: one sentence each.
    pub(super) notes: Vec<String>,
}

/// A facet that is not what it was.
struct Difference<'a> {
    facet: &'a str,
    was: &'a str,
    is: &'a str,
    if_changed: IfChanged,
}

/// What tells two descriptions of one operator apart.
fn differences<'a>(stored: &'a StateDescriptor, now: &'a StateDescriptor) -> Vec<Difference<'a>> {
    if stored.kind != now.kind {
        return vec![Difference { facet: "kind", was: &stored.kind, is: &now.kind, if_changed: IfChanged::Refuse }];
    }
    // A facet that was not recorded cannot be compared.
    let changed = now.facets.iter().filter_map(|facet| {
        let was = stored.facet(&facet.name).filter(|was| *was != facet.text)?;
        Some(Difference { facet: &facet.name, was, is: &facet.text, if_changed: facet.if_changed })
    });
    let gone = stored.facets.iter().filter(|facet| now.facet(&facet.name).is_none()).map(|facet| Difference {
        facet: &facet.name,
        was: &facet.text,
        is: "nothing",
        if_changed: IfChanged::Refuse,
    });
    changed.chain(gone).collect()
}

impl fmt::Display for Difference<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the {} was {} and is {}", self.facet, self.was, self.is)
    }
}

fn listed(differences: &[&Difference<'_>]) -> String {
    differences.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Compares. `drops`: whether stored state of operators that the graph no longer has is dropped.
pub(super) fn fit(graph: &Graph, stored: &StoredJob, store: &JobStore, drops: bool) -> Result<Fit> {
    let now = &graph.states()[..];
    let Some(last) = store.last_checkpoint() else { return Ok(Fit::default()) };
    check_format(stored, last.id)?;
    let holds = |uid: &str| Ok::<bool, Error>(store.holds(Node::state_of(uid))?);
    let mut fit = Fit::default();
    for operator in now {
        let Some(before) = stored.states.iter().find(|state| state.uid == operator.uid) else {
            fit.notes.push(format!("operator '{}' is new and begins without state", operator.uid));
            continue;
        };
        let all = differences(before, operator);
        let of = |what: IfChanged| all.iter().filter(|d| d.if_changed == what).collect::<Vec<_>>();
        let (refused, noted) = (of(IfChanged::Refuse), of(IfChanged::GoOn));
        if !refused.is_empty() && holds(&operator.uid)? {
            let node = graph.nodes.iter().find(|node| node.uid == operator.uid).map(|node| node.id);
            return Err(changed(node, operator, &refused).into());
        }
        if !refused.is_empty() {
            let what = listed(&refused);
            fit.notes.push(format!("of operator '{}', {what}: nothing was stored of it yet", operator.uid));
        }
        if !noted.is_empty() {
            fit.notes.push(format!("of operator '{}', {}: its state stays valid", operator.uid, listed(&noted)));
        }
    }
    let is_gone = |state: &&StateDescriptor| now.iter().all(|operator| operator.uid != state.uid);
    let lost: Vec<&StateDescriptor> = stored.states.iter().filter(is_gone).collect();
    let mut held = Vec::new();
    for state in &lost {
        if holds(&state.uid)? {
            held.push(*state);
        }
    }
    if !held.is_empty() && !drops {
        return Err(gone(&held, now, stored).into());
    }
    fit.notes.extend(held.iter().map(|state| format!("the state of operator '{}' is dropped", state.uid)));
    fit.dropped = lost.iter().map(|state| state.uid.clone()).collect();
    Ok(fit)
}

fn check_format(stored: &StoredJob, checkpoint: CheckpointId) -> Result<(), StateMismatch> {
    let (message, advice) = match stored.format {
        FORMAT => return Ok(()),
        0 => (
            format!(
                "checkpoint {checkpoint} was written by a version of Coulee that did not record what its operators keep, \
                 so it cannot be told whether its state fits this query"
            ),
            "finish the job with that version, or forget the state with --fresh",
        ),
        newer => (
            format!(
                "checkpoint {checkpoint} describes its operators in format {newer}, this version reads up to {FORMAT}"
            ),
            "use a newer coulee, or forget the state with --fresh",
        ),
    };
    Err(StateMismatch { operator: None, message, advice: advice.to_owned() })
}

fn changed(node: Option<OperatorId>, operator: &StateDescriptor, refused: &[&Difference<'_>]) -> StateMismatch {
    StateMismatch {
        operator: node,
        message: format!(
            "the stored state of operator '{}' would mean something else, as the query has changed: {}",
            operator.uid,
            listed(refused)
        ),
        advice: "run the former query, or forget the state with --fresh".to_owned(),
    }
}

fn gone(gone: &[&StateDescriptor], now: &[StateDescriptor], stored: &StoredJob) -> StateMismatch {
    let names = |states: &[&StateDescriptor]| states.iter().map(|s| s.uid.as_str()).collect::<Vec<_>>().join("', '");
    let is_new = |state: &&StateDescriptor| stored.states.iter().all(|before| before.uid != state.uid);
    let new: Vec<&StateDescriptor> = now.iter().filter(is_new).collect();
    let new_names = if new.is_empty() { String::new() } else { format!(" (new in it: '{}')", names(&new)) };
    let moved = gone.iter().find(|was| was.kind == "window" && new.iter().any(|is| is.kind == was.kind));
    let hint =
        moved.map(|was| format!(", say which query has it if it only moved: SELECT /*+ STATE_UID('{}') */ …", was.uid));
    StateMismatch {
        operator: None,
        message: format!(
            "the stored state has operator '{}', which the job no longer has{new_names}: the query has changed",
            names(gone)
        ),
        advice: format!(
            "restore the former query{}, drop that state with --allow-non-restored-state, or start over with --fresh",
            hint.unwrap_or_default()
        ),
    }
}

/// Gives operators of a family, which are told apart by an order only, the names under which the state is stored that is described as theirs is.
///
/// An order changes with edits: a second `INSERT` into a table, written before the first, would otherwise be taken for the first.
pub(super) fn adopt(graph: &mut Graph, stored: &[StateDescriptor]) -> Result<()> {
    let now: Vec<StateDescriptor> = graph.states().into_iter().filter(|state| state.family.is_some()).collect();
    let before: Vec<&StateDescriptor> = stored.iter().filter(|state| state.family.is_some()).collect();
    let mut adopted: Vec<Option<usize>> = vec![None; now.len()];
    let equal = |a: &StateDescriptor, b: &StateDescriptor| differences(a, b).is_empty();
    let fits = |a: &StateDescriptor, b: &StateDescriptor| {
        differences(a, b).iter().all(|difference| difference.if_changed != IfChanged::Refuse)
    };
    // From the surest to the least sure; in each step whoever already has the name comes first.
    type Rule<'a> = &'a dyn Fn(&StateDescriptor, &StateDescriptor) -> bool;
    let rules: [Rule<'_>; 5] =
        [&|a, b| a.uid == b.uid && equal(a, b), &equal, &|a, b| a.uid == b.uid && fits(a, b), &fits, &|a, b| {
            a.uid == b.uid
        }];
    for rule in rules {
        for (index, operator) in
            now.iter().enumerate().filter(|(index, _)| adopted[*index].is_none()).collect::<Vec<_>>()
        {
            let is_free = |at: &usize| !adopted.contains(&Some(*at)) && before[*at].family == operator.family;
            let found = (0..before.len()).filter(is_free).find(|at| rule(before[*at], operator));
            adopted[index] = found;
        }
    }
    // Names of nodes that keep theirs.
    let kept: Vec<&str> =
        graph.nodes.iter().map(|node| node.uid.as_str()).filter(|uid| now.iter().all(|o| o.uid != *uid)).collect();
    let mut names: Vec<String> = Vec::with_capacity(now.len());
    for (operator, adopted) in now.iter().zip(&adopted) {
        names.push(match adopted {
            Some(at) => before[*at].uid.clone(),
            None => unused(&operator.uid, |uid| {
                before.iter().any(|state| state.uid == uid)
                    || names.iter().any(|name| name == uid)
                    || kept.contains(&uid)
            }),
        });
    }
    rename(graph, &now, &names)
}

fn unused(uid: &str, is_used: impl Fn(&str) -> bool) -> String {
    if !is_used(uid) {
        return uid.to_owned();
    }
    let numbered = (2u32..).map(|number| format!("{uid}-{number}")).find(|name| !is_used(name));
    numbered.unwrap_or_else(|| uid.to_owned())
}

/// Renames in two steps, as names may be exchanged.
fn rename(graph: &mut Graph, now: &[StateDescriptor], names: &[String]) -> Result<()> {
    let id = |graph: &Graph, uid: &str| graph.nodes.iter().find(|node| node.uid == uid).map(|node| node.id);
    let mut renamed = Vec::new();
    for (operator, name) in now.iter().zip(names).filter(|(operator, name)| operator.uid != **name) {
        let Some(id) = id(graph, &operator.uid) else { continue };
        graph.rename(id, format!("{} on its way to {name}", operator.uid))?;
        renamed.push((id, name));
    }
    renamed.into_iter().try_for_each(|(id, name)| graph.rename(id, name.clone()))
}
