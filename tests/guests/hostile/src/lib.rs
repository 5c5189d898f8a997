//! Does what a plugin must not do: the event's type says what.

use std::hint::black_box;
use std::time::Duration;

wit_bindgen::generate!({
    path: "../../../wit",
    inline: "
        package test:hostile;
        world hostile {
            include tidegate:plugin/consumer@0.1.0;
            import wasi:keyvalue/store@0.2.0-draft2;
            import wasi:logging/logging@0.1.0-draft;
        }
    ",
    world: "test:hostile/hostile",
    generate_all,
});

use exports::tidegate::plugin::handler::{Event, Failure, Guest};
use tidegate::plugin::outbox::{Draft, emit};
use tidegate::plugin::types::Transient;
use wasi::keyvalue::store;
use wasi::logging::logging::{Level, log};

struct Plugin;

impl Guest for Plugin {
    fn handle(event: Event) -> Result<(), Failure> {
        match event.kind.as_str() {
            "ok" => Ok(()),
            "ok-emit" => emit_one(0).map_err(Failure::Permanent),
            "loop" => endless_loop(),
            "loop-in-host-calls" => loop_in_host_calls(),
            "sleep" => sleep_for_ever(),
            "recurse" => {
                black_box(recurse(1));
                Ok(())
            }
            "grow-memory" => grow_memory(),
            "grow-memory-and-heed" => match grow_until_refused() {
                0 => Err(Failure::Permanent("it never grew".to_owned())),
                _ => Ok(()),
            },
            "emit-flood" => emit_flood(),
            "emit-flood-and-heed" => {
                while emit_one(10).is_ok() {}
                Ok(())
            }
            "emit-flood-and-say" => {
                while emit_one(10).is_ok() {}
                Err(Failure::Transient(Transient {
                    reason: "too much".to_owned(),
                    retry_after_ms: Some(5),
                }))
            }
            "emit-large" => {
                let error = emit_one(2 << 20).expect_err("it is over the limit");
                Err(Failure::Permanent(error))
            }
            "emit-huge" => emit_one(40 << 20).map_err(Failure::Permanent),
            "state-flood" => state_flood(),
            "huge-log" => {
                log(Level::Info, "hostile", &"x".repeat(10 << 20));
                Ok(())
            }
            "log-flood" => {
                for line in 0..100_000 {
                    log(Level::Info, "hostile", &line.to_string());
                }
                println!("{}", "y".repeat(1 << 20));
                Ok(())
            }
            "panic" => panic!("no stock for {}\nat all", event.id),
            "exit" => std::process::exit(7),
            "abort" => std::process::abort(),
            "look-around" => look_around(),
            "random-flood" => loop {
                black_box(random(1 << 19));
            },
            "leave-behind" => {
                leave_behind(&event);
                Ok(())
            }
            "long-failure" => Err(Failure::Permanent("z".repeat(100_000))),
            other => Err(Failure::Permanent(format!("no such behaviour: {other}"))),
        }
    }
}

export!(Plugin);

#[inline(never)]
fn endless_loop() -> ! {
    let mut n = 0_u64;
    loop {
        n = black_box(n.wrapping_add(1));
    }
}

#[inline(never)]
fn loop_in_host_calls() -> ! {
    loop {
        black_box(tidegate::plugin::context::current());
    }
}

#[inline(never)]
fn sleep_for_ever() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

#[inline(never)]
#[allow(unconditional_recursion)]
fn recurse(depth: u64) -> u64 {
    let bytes = black_box([depth; 16]);
    recurse(depth + 1) + bytes[3]
}

#[inline(never)]
fn grow_memory() -> ! {
    let mut kept = Vec::new();
    loop {
        kept.push(black_box(vec![1_u8; 1 << 20]));
    }
}

fn grow_until_refused() -> usize {
    let mut pages = 0;
    while core::arch::wasm32::memory_grow::<0>(16) != usize::MAX {
        pages += 16;
    }
    pages
}

fn emit_one(bytes: usize) -> Result<(), String> {
    let draft = Draft {
        kind: "hostile.said".to_owned(),
        subject: None,
        datacontenttype: None,
        dataschema: None,
        extensions: Vec::new(),
        data: vec![7; bytes],
    };
    emit(&draft).map(drop).map_err(|error| format!("{error:?}"))
}

#[inline(never)]
fn emit_flood() -> ! {
    loop {
        emit_one(100).unwrap();
    }
}

#[inline(never)]
fn state_flood() -> ! {
    let bucket = store::open("").unwrap();
    for n in 0_u64.. {
        bucket.set(&n.to_string(), &[0; 1000]).unwrap();
    }
    unreachable!()
}

/// What a plugin must not find: the host's environment, files, arguments, input, network.
fn look_around() -> Result<(), Failure> {
    use std::io::Read;
    let mut found = Vec::new();
    if std::env::vars_os().next().is_some() {
        found.push("environment");
    }
    if std::env::args_os().next().is_some() {
        found.push("arguments");
    }
    if std::fs::read_dir("/").is_ok() || std::fs::write("x", "x").is_ok() {
        found.push("files");
    }
    if std::io::stdin().read(&mut [0; 8]).is_ok_and(|read| read > 0) {
        found.push("input");
    }
    if std::net::TcpListener::bind("127.0.0.1:0").is_ok()
        || std::net::UdpSocket::bind("127.0.0.1:0").is_ok()
        || std::net::TcpStream::connect("127.0.0.1:9").is_ok()
        || std::net::ToSocketAddrs::to_socket_addrs("localhost:9").is_ok_and(|mut found| found.next().is_some())
    {
        found.push("network");
    }
    match found.as_slice() {
        [] => Ok(()),
        found => Err(Failure::Permanent(found.join(", "))),
    }
}

fn random(bytes: usize) -> Vec<u64> {
    use std::collections::hash_map::RandomState;
    use std::hash::BuildHasher;
    (0..bytes / 8).map(|n| RandomState::new().hash_one(n)).collect()
}

/// Emits how many events this instance has seen before: more than none where instances are reused.
fn leave_behind(event: &Event) {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static SEEN: AtomicUsize = AtomicUsize::new(0);
    let seen = SEEN.fetch_add(1, Ordering::Relaxed);
    let draft = Draft {
        kind: "hostile.seen".to_owned(),
        subject: Some(seen.to_string()),
        datacontenttype: None,
        dataschema: None,
        extensions: Vec::new(),
        data: event.data.clone(),
    };
    emit(&draft).unwrap();
}
