//! Faults on purpose: what `COULEE_FAILPOINTS` says shall happen at which point of the commit protocol.
//!
//! `name=action;name=action`, where an action is one of the crate `fail` (`return`, `2*off->return(text)`, `sleep(100)`, …) or
//!
//! | action | what happens |
//! | --- | --- |
//! | `kill`, `kill@N` | the N-th time that the point is reached (the first if N is absent), the process is gone at once, as by `kill -9` |
//! | `ioerror`, `ioerror@N` | the N-th time, the point fails once with an error, where it can fail |
//!
//! For crash tests. Without the variable the points do nothing.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::failure::Failure;
use crate::screen::note;

/// The variable that switches points on.
const VARIABLE: &str = "COULEE_FAILPOINTS";

/// What shall happen at a point.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Action {
    /// The process ends, the n-th time (from 1).
    Kill(u64),
    /// As the crate `fail` says it.
    Fail(String),
}

/// Switches on the points that the environment names, before anything else runs.
///
/// # Errors
/// When the variable is not of the form above. A name that no point has is not noticed.
pub fn configure() -> Result<(), Failure> {
    let Some(text) = std::env::var_os(VARIABLE).filter(|text| !text.is_empty()) else { return Ok(()) };
    let text = text.to_string_lossy();
    for (name, action) in parse(&text)? {
        match action {
            Action::Kill(nth) => {
                let reached = AtomicU64::new(0);
                let kill = move || {
                    if reached.fetch_add(1, Ordering::SeqCst) + 1 == nth {
                        // No destructor runs and no buffer is flushed: what is not with the system by now is lost.
                        std::process::abort();
                    }
                };
                fail::cfg_callback(name, kill).map_err(wrong)?;
            }
            Action::Fail(actions) => fail::cfg(name, &actions).map_err(wrong)?,
        }
    }
    note(&format!("warning: {VARIABLE} is set: this process fails on purpose ({text})"))
}

fn wrong(reason: impl std::fmt::Display) -> Failure {
    Failure::Input(format!(
        "{VARIABLE}: {reason}; expected 'name=action;name=action', such as 'checkpoint.commit.before-write=kill@3'"
    ))
}

fn parse(text: &str) -> Result<Vec<(String, Action)>, Failure> {
    let settings = text.split(';').map(str::trim).filter(|setting| !setting.is_empty());
    settings
        .map(|setting| {
            let (name, action) = setting.split_once('=').ok_or_else(|| wrong(format!("'{setting}' has no '='")))?;
            Ok((name.trim().to_owned(), action_of(action.trim())?))
        })
        .collect()
}

fn action_of(text: &str) -> Result<Action, Failure> {
    let (word, nth) = match text.split_once('@') {
        None => (text, 1),
        Some((word, nth)) => {
            let parsed = nth.parse().ok().filter(|nth| *nth > 0);
            (word, parsed.ok_or_else(|| wrong(format!("'{text}': '{nth}' is not a number of 1 or more")))?)
        }
    };
    match word {
        "kill" => Ok(Action::Kill(nth)),
        "ioerror" if nth == 1 => Ok(Action::Fail("1*return(ioerror)".to_owned())),
        "ioerror" => Ok(Action::Fail(format!("{}*off->1*return(ioerror)", nth - 1))),
        _ => Ok(Action::Fail(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_are_read() {
        let read = parse("a.b=kill; c.d=kill@3 ;e=ioerror@4;f=ioerror;g=50%return(x)->sleep(10);").unwrap();
        let expected = [
            ("a.b", Action::Kill(1)),
            ("c.d", Action::Kill(3)),
            ("e", Action::Fail("3*off->1*return(ioerror)".into())),
            ("f", Action::Fail("1*return(ioerror)".into())),
            ("g", Action::Fail("50%return(x)->sleep(10)".into())),
        ];
        assert_eq!(read, expected.map(|(name, action)| (name.to_owned(), action)));
        for text in ["a", "a=kill@x", "a=kill@0"] {
            assert!(parse(text).unwrap_err().to_string().contains("COULEE_FAILPOINTS"), "{text}");
        }
    }

    #[test]
    fn an_error_comes_the_nth_time_and_only_then() {
        fn reach() -> Result<(), String> {
            fail::fail_point!("cli.test.nth", |text| Err(text.unwrap_or_default()));
            Ok(())
        }
        let scenario = fail::FailScenario::setup();
        let Action::Fail(actions) = action_of("ioerror@3").unwrap() else { panic!("an action of `fail`") };
        fail::cfg("cli.test.nth", &actions).unwrap();
        let reached: Vec<bool> = (0..5).map(|_| reach().is_err()).collect();
        assert_eq!(reached, [false, false, true, false, false]);
        scenario.teardown();
    }
}
