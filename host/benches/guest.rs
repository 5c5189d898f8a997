//! What an attempt of a plugin costs: everything between the event and what came of it, called as the pipeline calls it.
//!
//! `cargo bench --bench guest` measures all parts; names of parts after `--` choose among them: `attempt`, `memory`, `start`,
//! `waiting`, `computing`.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a benchmark that can't measure ends, and it measures what a user's clock shows"
)]

#[path = "guest/bench.rs"]
mod bench;
mod meter;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bench::{Bench, attempt, event, runtime};
use meter::Sample;

fn main() {
    // The arguments that cargo itself gives begin with a dash.
    let chosen: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let parts: [(&str, fn()); 5] = [
        ("attempt", attempts),
        ("memory", memory),
        ("start", start),
        ("waiting", waiting),
        ("computing", computing),
    ];
    for (name, part) in parts {
        if chosen.is_empty() || chosen.iter().any(|chosen| chosen == name) {
            println!("{name}");
            part();
        }
    }
}

/// One order in, one invoice out; and what does nothing, which is what an attempt costs by itself. Two rounds: the first warms up.
fn attempts() {
    let (template, nothing) = (bench::template(), bench::assemble("nothing"));
    for _ in 0..2 {
        for threads in [1, 2] {
            for instances in ["fresh", "reuse"] {
                for (what, plugin) in [("nothing", &nothing), ("template", &template)] {
                    let name = format!("{what}, {instances}, {threads} thread(s), 256 bytes");
                    measure(
                        &name,
                        &Bench::new(threads, instances, plugin),
                        bench::order(256),
                        100_000,
                    );
                }
            }
        }
    }
    for bytes in [64 << 10, 1 << 20] {
        for instances in ["fresh", "reuse"] {
            let name = format!("template, {instances}, 1 thread(s), {bytes} bytes");
            let events = u32::try_from((1 << 30) / bytes).unwrap_or(u32::MAX);
            measure(&name, &Bench::new(1, instances, &template), bench::order(bytes), events);
        }
    }
}

/// A guest that grows its memory by so many bytes and writes to all of them.
fn memory() {
    let work = bench::guest("work");
    for bytes in [0, 1 << 20, 8 << 20] {
        for instances in ["fresh", "reuse"] {
            let name = format!("holds {bytes} bytes, {instances}");
            let event = event("hold", &bytes.to_string());
            measure(&name, &Bench::new(2, instances, &work), event, 2_000);
        }
    }
}

fn measure(name: &str, bench: &Bench, event: tidegate::event::Event, events: u32) {
    let cost = bench.run_all(event, events);
    println!("{name:45} {cost}");
}

/// From compiled code on disk to a plugin that is ready; and, the first time, compiling it.
fn start() {
    let template = bench::template();
    let runtime = runtime(2);
    let folder = tempfile::tempdir().expect("a folder");
    let plan = bench::plan("fresh", &template, Some(folder.path()));
    for what in ["compiled", "from the cache", "from the cache"] {
        let begun = Instant::now();
        let engine = bench::engine(&plan);
        let made = begun.elapsed();
        runtime.block_on(bench::load(&engine, &plan));
        println!("{what:45} engine {made:8.1?}, plugin {:8.1?}", begun.elapsed() - made);
    }
}

/// Plugins that wait 20 ms, 256 at once: the ideal is 12,800 events/s. And tasks that wait with the runtime's timer and do nothing else.
fn waiting() {
    const AT_ONCE: u32 = 256;
    const EACH: u32 = 100;
    let work = bench::guest("work");
    let (runtime, begun) = (bench::runtime(2), Instant::now());
    let sleep = || async {
        for _ in 0..EACH {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let sleeping: Vec<_> = (0..AT_ONCE).map(|_| runtime.spawn(sleep())).collect();
    for task in sleeping {
        runtime.block_on(task).expect("it does not panic");
    }
    let rate = f64::from(AT_ONCE * EACH) / begun.elapsed().as_secs_f64();
    println!("waits 20 ms, 256 at once, no guest     {rate:10.0} events/s");
    for instances in ["fresh", "reuse"] {
        let bench = Bench::new(2, instances, &work);
        bench.run(&event("wait", "20"), AT_ONCE, 2);
        let (begun, sample) = (Instant::now(), Sample::start());
        bench.run(&event("wait", "20"), AT_ONCE, EACH);
        let rate = f64::from(AT_ONCE * EACH) / begun.elapsed().as_secs_f64();
        let cost = sample.end(AT_ONCE * EACH);
        println!("waits 20 ms, 256 at once, {instances:12} {rate:10.0} events/s {cost}");
    }
}

/// How long a small event of one consumer takes, asked for every millisecond, while nothing else runs and while guests of another
/// that compute 5 ms each keep both workers busy.
fn computing() {
    let work = bench::guest("work");
    let bench = Bench::new(2, "fresh", &work);
    let other = Arc::new(bench.another(&work));
    for beside in [0, 1, 2, 4, 16, 64] {
        let stop = Arc::new(AtomicBool::new(false));
        let (done, begun) = (Arc::new(AtomicU32::new(0)), Instant::now());
        let computing: Vec<_> = (0..beside)
            .map(|_| {
                let (plugin, stop, done) = (Arc::clone(&other), Arc::clone(&stop), Arc::clone(&done));
                bench.runtime.spawn(async move {
                    while !stop.load(Ordering::Relaxed) {
                        attempt(&plugin, &event("compute", "5")).await;
                        done.fetch_add(1, Ordering::Relaxed);
                        // As the pipeline does: each attempt is a task of its own.
                        tokio::task::yield_now().await;
                    }
                })
            })
            .collect();
        let mut took = bench.runtime.block_on(paced(&bench, 2_000));
        let rate = f64::from(done.load(Ordering::Relaxed)) / begun.elapsed().as_secs_f64();
        stop.store(true, Ordering::Relaxed);
        for task in computing {
            bench.runtime.block_on(task).expect("it does not panic");
        }
        took.sort();
        let at = |share: usize| took.get(took.len() * share / 1000).copied().unwrap_or_default();
        println!(
            "beside {beside:2} that compute 5 ms, {rate:4.0}/s      p50 {:9.1?}  p99 {:9.1?}  p99.9 {:9.1?}",
            at(500),
            at(990),
            at(999)
        );
    }
}

/// The latencies of that many events, one each millisecond, from when each was to begin.
async fn paced(bench: &Bench, count: u32) -> Vec<Duration> {
    let begun = Instant::now();
    let tasks: Vec<_> = (0..count)
        .map(|n| {
            let plugin = Arc::clone(&bench.plugin);
            let due = begun + n * Duration::from_millis(1);
            tokio::spawn(async move {
                tokio::time::sleep_until(due.into()).await;
                attempt(&plugin, &event("nothing", "")).await;
                due.elapsed()
            })
        })
        .collect();
    let took = futures_util::future::join_all(tasks).await;
    took.into_iter().map(|took| took.expect("it does not panic")).collect()
}
