//! Deterministic simulation of a whole job: one thread, an injected clock, a drawn schedule, and a world that fails. The same seed gives the same run.
//!
//! A seed draws an input, a graph's parallelism, delays, failures of sources and sinks, panics, stops and power cuts. The job is started again after each
//! of them, at another parallelism, until it has processed all input. What it then has delivered is compared with what a naive recomputation
//! (`oracle`) says.
//!
//! | file | what it stands for |
//! | --- | --- |
//! | `machine` | the thread, the clock, the schedule, the power switch |
//! | `scenario` | what a seed draws before anything runs |
//! | `world` | what outlives a power cut: the sinks' transactions, faults that are left |
//! | `source`, `sink`, `functions` | the job's connectors and user functions |
//! | `objects` | the object store of its snapshots |
//! | `graph` | the job |
//! | `disk` | the job's state on disk, and how a commit is torn |
//! | `oracle` | what must have come out |
//!
//! `COULEE_SIM_SEEDS=1000` runs so many seeds, `COULEE_SIM_SEED=17` this one, with its trace.

mod disk;
mod functions;
mod graph;
mod machine;
mod objects;
mod oracle;
mod scenario;
mod sink;
mod source;
mod tests;
mod world;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use coulee_model::JobName;
use rand::Rng;

use crate::job::executor::Executor;
use crate::job::launch::{launch_on, restore_on};
use crate::job::{Environment, JobHandle, JobOutcome, JobSettings, JobSpec, Snapshots};
use crate::planted::{Bug, plant};
use disk::StateDisk;
use graph::Parallelism;
use machine::{Cut, Machine, Stopped};
use scenario::Scenario;
use world::World;

/// Simulated time after which a job that has not finished is given up.
const END_AFTER: Duration = Duration::from_secs(20 * 60);

/// A bug that the simulation must find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Planted {
    Runtime(Bug),
    World(BrokenWorld),
}

/// A part of the world that breaks its contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BrokenWorld {
    /// The disk says that a commit is synced when it is not.
    DiskDoesNotSync,
    /// A reader's position does not count the last batch.
    SourceForgetsPosition,
    /// A reader that is not polled to the end of `next` has lost rows.
    SourceIsNotCancelSafe,
    /// An enumerator remembers beyond an attempt which splits it gave.
    EnumeratorRemembers,
    /// A sink makes its rows visible when it prepares them.
    SinkCommitsEarly,
    /// A sink commits again what it has committed.
    SinkCommitsTwice,
    /// A sink's recovery gives up what was to be committed.
    SinkRecoversNothing,
    /// A writer does not prepare the rows that it holds back.
    SinkPreparesTooLittle,
    /// A function keeps its counts in itself and not in its state.
    StateOutsideState,
}

/// What came of one seed.
struct Run {
    trace: Vec<String>,
    /// What is wrong, if something is.
    verdict: Result<(), String>,
}

struct Simulation {
    machine: Machine,
    world: World,
    scenario: Arc<Scenario>,
    disk: StateDisk,
    stops_left: parking_lot::Mutex<u32>,
    /// Whether the state is to be taken from a snapshot.
    is_lost: std::sync::atomic::AtomicBool,
}

/// Runs one seed.
fn simulate(seed: u64, planted: Option<Planted>) -> Run {
    let (in_runtime, in_world) = match planted {
        None => (None, None),
        Some(Planted::Runtime(bug)) => (Some(bug), None),
        Some(Planted::World(broken)) => (None, Some(broken)),
    };
    plant(in_runtime);
    let machine = Machine::new(seed);
    let scenario = Arc::new(machine.draw(Scenario::draw));
    let world = World::new(machine.clone(), scenario.clone(), in_world);
    let disk = StateDisk::new(machine.clone(), in_world == Some(BrokenWorld::DiskDoesNotSync));
    let stops_left = parking_lot::Mutex::new(scenario.stops);
    let simulation = Simulation { machine, world, scenario, disk, stops_left, is_lost: false.into() };
    let verdict = simulation.run();
    plant(None);
    Run { trace: simulation.machine.take_trace(), verdict }
}

impl Simulation {
    fn run(&self) -> Result<(), String> {
        self.machine.trace(format_args!("{:?}", self.scenario));
        let (mut cuts, mut losses) = (0, self.scenario.disk_losses);
        loop {
            self.machine.plan_cut((cuts < self.scenario.cuts).then(|| self.draw_cut()));
            self.disk.watch();
            match self.machine.run(self.live()) {
                Ok(ended) => {
                    let read = ended?;
                    return oracle::check(&self.scenario, &self.world, read);
                }
                Err(Stopped::Stuck(why)) => return Err(why.to_owned()),
                Err(Stopped::Cut(cut)) => {
                    self.world.check()?;
                    if self.world.holds_store() {
                        return Err("the state is held open after everything was dropped".to_owned());
                    }
                    self.disk.lose_power(cut);
                    if losses > 0 && self.machine.once_in(2) {
                        losses -= 1;
                        self.disk.lose_all();
                        self.is_lost.store(true, Ordering::SeqCst);
                    }
                    let down = self.machine.draw(|random| random.random_range(1..400));
                    self.machine.pass(Duration::from_millis(down));
                    cuts += 1;
                }
            }
        }
    }

    fn draw_cut(&self) -> Cut {
        let now = self.machine.elapsed();
        self.machine.draw(|random| match random.random_range(0..4) {
            0 | 1 => Cut::At(now + Duration::from_micros(random.random_range(5_000..1_500_000))),
            2 => Cut::BeforeCommit(random.random_range(1..=8)),
            _ => Cut::WithinCommit(random.random_range(1..=8)),
        })
    }

    /// One life of the process: starts the job again and again, until it has finished. Says how many rows its sources counted.
    async fn live(&self) -> Result<u64, String> {
        self.restore().await?;
        loop {
            let (job, sources) = self.launch()?;
            let outcome = self.outcome(&job).await?;
            self.machine.trace(format_args!("the attempt ends: {}", told(&outcome)));
            self.world.check()?;
            let subtasks = job.status().subtasks;
            let read =
                subtasks.iter().filter(|subtask| subtask.operator.0 < sources).map(|s| s.figures.rows_in()).sum();
            drop(job);
            if self.world.holds_store() {
                return Err("an attempt that has ended holds the state open".to_owned());
            }
            match outcome {
                JobOutcome::Finished => return Ok(read),
                JobOutcome::Stopped(_) => {}
                JobOutcome::Failed(error) if error.to_string().contains(world::SIMULATED) => {
                    self.machine.lag(50_000).await
                }
                other => return Err(format!("the job ended by itself: {}", told(&other))),
            }
        }
    }

    /// After the disk was lost: brings back the newest snapshot, if there is one.
    async fn restore(&self) -> Result<(), String> {
        while self.is_lost.load(Ordering::SeqCst) && !self.disk.folder("state").exists() {
            self.machine.trace(format_args!("the disk was lost"));
            match self.restore_newest().await {
                Ok(()) => self.is_lost.store(false, Ordering::SeqCst),
                Err(error) if error.to_string().contains(world::SIMULATED) => {}
                Err(error) => return Err(format!("a snapshot cannot be restored: {error}")),
            }
        }
        Ok(())
    }

    async fn restore_newest(&self) -> crate::Result<()> {
        let snapshots = self.world.snapshots();
        let newest = snapshots.list().await?.into_iter().max_by_key(|manifest| manifest.checkpoint());
        let Some(newest) = newest else { return Ok(()) };
        let (state, spool) = (self.disk.folder("state"), self.disk.folder("spool"));
        restore_on(&self.machine, &snapshots, &newest.name(), (&state, &spool)).await?;
        self.machine.trace(format_args!("the snapshot of checkpoint {} is restored", newest.checkpoint()));
        Ok(())
    }

    fn launch(&self) -> Result<(JobHandle, u32), String> {
        let parallelism = self.machine.draw(Parallelism::draw);
        self.machine.trace(format_args!("an attempt begins at {parallelism:?}"));
        let store = Arc::new(self.disk.open()?);
        self.world.watch(&store);
        let graph = graph::graph(&self.world, parallelism).map_err(|error| error.to_string())?;
        let spec = JobSpec {
            name: JobName::new("simulated").map_err(|error| error.to_string())?,
            incarnation: "0123456789ab".to_owned(),
            graph,
            settings: JobSettings {
                checkpoint_interval: self.scenario.interval,
                batch_rows: self.scenario.batch_rows,
                ..JobSettings::default()
            },
        };
        let environment = Environment {
            store,
            spool: self.disk.folder("spool"),
            scratch: self.disk.folder("scratch"),
            clock: Arc::new(self.machine.clone()),
            snapshots: self.scenario.snapshots.map(|interval| Snapshots {
                store: self.world.snapshots(),
                interval,
                keep: 2,
                grace: Duration::from_secs(3600),
            }),
        };
        let job = launch_on(Arc::new(self.machine.clone()), spec, environment);
        Ok((job.map_err(|error| format!("the job cannot begin: {error}"))?, self.scenario.sources.len() as u32))
    }

    /// Waits for the end of an attempt, or stops it at some time.
    async fn outcome(&self, job: &JobHandle) -> Result<JobOutcome, String> {
        let stops = *self.stops_left.lock() > 0 && self.machine.once_in(2);
        let after = self.machine.draw(|random| random.random_range(10..900));
        let stop = async {
            match stops {
                true => self.machine.sleep_for(Duration::from_millis(after)).await,
                false => std::future::pending().await,
            }
        };
        let outcome = async {
            tokio::select! {
                biased;
                outcome = job.outcome() => return outcome,
                () = stop => {}
            }
            *self.stops_left.lock() -= 1;
            self.machine.trace(format_args!("the job is told to stop"));
            job.stop();
            job.outcome().await
        };
        let executor: &dyn Executor = &self.machine;
        executor.within(END_AFTER, outcome).await.ok_or_else(|| "the job does not come to its end".to_owned())
    }
}

fn told(outcome: &JobOutcome) -> String {
    match outcome {
        JobOutcome::Failed(error) => format!("failed: {error}"),
        other => format!("{other:?}"),
    }
}
