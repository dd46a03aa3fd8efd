//! Which of a script's jobs begins with the snapshot that was asked for.

use coulee_model::JobName;
use coulee_sql::Statement;

use crate::Error;

/// The snapshot that a script's new jobs begin with.
#[derive(Debug)]
pub(super) struct Restore {
    /// A name, which each job has a snapshot of, or a URL, which is one job's.
    pub(super) wanted: Option<String>,
    /// Whether the script makes one job only: it takes the snapshot whatever the job was called.
    is_single: bool,
    used: bool,
}

impl Restore {
    pub(super) fn new(wanted: Option<String>, statements: &[Statement]) -> Self {
        let makes_job = |statement: &&Statement| {
            let word = statement.text().split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default();
            word.eq_ignore_ascii_case("INSERT") || word.eq_ignore_ascii_case("EXECUTE")
        };
        Restore { wanted, is_single: statements.iter().filter(makes_job).count() == 1, used: false }
    }

    /// Whether the snapshot of one job is for another.
    pub(super) fn is_for(&mut self, snapshot: &JobName, job: &JobName) -> bool {
        let is = self.is_single || snapshot == job;
        self.used |= is;
        is
    }

    /// What is said when nobody took the snapshot.
    pub(super) fn unused(&self) -> Option<Error> {
        let wanted = self.wanted.as_ref().filter(|_| !self.used)?;
        Some(Error::Invalid(format!(
            "--from {wanted} is of none of the script's jobs: they were started without it; name the snapshot of one of them"
        )))
    }
}

#[cfg(test)]
mod tests {
    use coulee_sql::parse_script;

    use super::*;

    #[test]
    fn a_snapshot_is_for_the_job_of_its_name_or_for_the_only_one() {
        let of = |text: &str| {
            Restore::new(Some("s3://b/a/savepoints/v1.json".into()), &parse_script(text, "x.sql").unwrap())
        };
        let (a, b) = (JobName::new("a").unwrap(), JobName::new("b").unwrap());
        let mut single = of("CREATE TABLE t (n INT); INSERT INTO t SELECT 1");
        assert!(single.unused().is_some_and(|error| error.to_string().contains("none of the script's jobs")));
        assert!(single.is_for(&a, &b) && single.unused().is_none());
        let mut several = of("INSERT INTO t SELECT 1; insert into t SELECT 2");
        assert!(!several.is_for(&a, &b) && several.unused().is_some());
        assert!(several.is_for(&a, &a) && several.unused().is_none());
    }
}
