//! What others' users have been burned by, each with a test by that name which shows that it does not happen here: real hosts, and real
//! servers where the failure was one of brokers. `docs/reliability.md` has the list.

mod brokers;
mod events;
mod hosts;

use tidegate_tests::guests;
use tidegate_tests::host::Host;

/// A consumer of a guest from an embedded stream to a stream of the same broker, with further lines of its own.
fn embedded(guest: &str, lines: &str) -> String {
    format!(
        "[ledger]\nurl = \"embedded:./data\"\n[broker.main]\nurl = \"embedded:./data\"\n[stream.in]\nbroker = \"main\"\n[stream.out]\nbroker = \"main\"\n\
         [ingress]\nlisten = \"127.0.0.1:0\"\nroutes = {{ \"/in\" = \"in\" }}\n{}{lines}\n",
        consumer(guest, "in")
    )
}

fn consumer(guest: &str, reads: &str) -> String {
    let plugin = guests::build(guest);
    format!(
        "[consumer.{guest}]\nplugin = \"{}\"\nreads = \"{reads}\"\nwrites = \"out\"\n",
        plugin.display()
    )
}

/// Puts events in, each with a key of its own.
async fn send(host: &Host<'_>, kind: &str, numbers: std::ops::Range<u32>, data: &str) {
    for number in numbers {
        let id = format!("e{number}");
        let sent = host.send(kind, &id, &id, data).await;
        assert_eq!(sent.expect("the host runs"), 202);
    }
}

/// How many attempts have failed in this host.
async fn failed(host: &Host<'_>) -> f64 {
    let text = host.get("/metrics").await.1;
    let lines = text.lines().filter(|line| line.starts_with("tidegate_attempts_total{"));
    let failed = lines.filter(|line| !line.contains("\"succeeded\"") && !line.contains("\"not-run\""));
    failed
        .map(|line| {
            line.rsplit(' ')
                .next()
                .and_then(|number| number.parse::<f64>().ok())
                .expect("a number")
        })
        .sum()
}
