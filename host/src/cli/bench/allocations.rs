//! How often a host has allocated memory, as its allocator counts it.

use std::process::Stdio;

use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use crate::cli::complain;

/// Makes jemalloc print its counts on stderr when the process ends: as JSON, of all arenas together and nothing else.
const PRINT: (&str, &str) = ("_RJEM_MALLOC_CONF", "stats_print:true,stats_print_opts:Jgdablxeh");
/// How its text begins.
const BEGIN: &str = "{\"jemalloc\":";

/// Asks for the counts of a host that is about to be started.
pub(super) fn ask(command: &mut Command) {
    command.env(PRINT.0, PRINT.1).stderr(Stdio::piped());
}

/// Passes on what a host logs, and gives the counts once it has ended; nothing if it printed none.
pub(super) fn listen(child: &mut Child) -> Option<JoinHandle<Option<u64>>> {
    let mut stderr = BufReader::new(child.stderr.take()?);
    Some(tokio::spawn(async move {
        let mut line = String::new();
        while stderr.read_line(&mut line).await.ok()? > 0 {
            if line.starts_with(BEGIN) {
                stderr.read_to_string(&mut line).await.ok()?;
                return counted(&line);
            }
            complain(line.trim_end());
            line.clear();
        }
        None
    }))
}

/// How many allocations the text tells of.
fn counted(text: &str) -> Option<u64> {
    #[derive(Deserialize)]
    struct Text {
        jemalloc: Stats,
    }
    #[derive(Deserialize)]
    struct Stats {
        #[serde(rename = "stats.arenas")]
        arenas: Arenas,
    }
    #[derive(Deserialize)]
    struct Arenas {
        merged: Merged,
    }
    #[derive(Deserialize)]
    struct Merged {
        small: Class,
        large: Class,
    }
    #[derive(Deserialize)]
    struct Class {
        nmalloc: u64,
    }
    let text: Text = serde_json::Deserializer::from_str(text).into_iter().next()?.ok()?;
    let merged = text.jemalloc.arenas.merged;
    Some(merged.small.nmalloc + merged.large.nmalloc)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_allocators_text_is_read() {
        let text = "{\"jemalloc\":{\"version\":\"5\",\"stats.arenas\":{\"merged\":{\"small\":{\"nmalloc\":40},\"large\":{\"nmalloc\":2}}}}}\n--- End\n";
        assert!(text.starts_with(BEGIN));
        assert_eq!(counted(text), Some(42));
        assert_eq!(counted("{\"jemalloc\":{}}"), None);
    }
}
