//! Does as much work as it is told, for benchmarks: the event's type says which, its data how much.

use std::hint::black_box;
use std::thread;
use std::time::{Duration, Instant};

use tidegate_plugin::{Event, Failure};

tidegate_plugin::handler!(handle);

fn handle(event: Event) -> Result<(), Failure> {
    match event.kind.as_str() {
        "nothing" => {}
        "wait" => thread::sleep(Duration::from_millis(event.json()?)),
        "compute" => compute(Duration::from_millis(event.json()?)),
        "hold" => drop(black_box(vec![1_u8; event.json()?])),
        other => return Err(Failure::permanent(format!("no such work: {other}"))),
    }
    Ok(())
}

/// Computes for so long, but looks at the clock rarely: what is measured is computing, not host calls.
fn compute(time: Duration) {
    let begun = Instant::now();
    let mut n = 0_u64;
    while begun.elapsed() < time {
        for _ in 0..20_000 {
            n = black_box(n.wrapping_mul(31).wrapping_add(7));
        }
    }
}
