//! `tidegate check`: proves the config and every plugin against it, and says what would run. Touches no broker and no ledger.

mod summary;

use std::fmt;

use serde::Serialize;

use self::summary::{ConsumerSummary, Summary, Warnings};
use super::inspect::{emits, inspect};
use super::{Global, complain, say};
use crate::clock::Clock;
use crate::config::Severity;
use crate::event::{Event, Message};
use crate::plan::{Name, Stream};
use crate::plugin::{self, Engine, Handler, LoadError, Settings};

/// Arguments of `tidegate check`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {}

/// Plugins that do not fit their consumers. Not empty.
#[derive(Debug, Serialize, thiserror::Error)]
#[serde(transparent)]
pub struct Refused(Vec<RefusedPlugin>);

#[derive(Debug, Serialize)]
struct RefusedPlugin {
    consumer: Name,
    code: &'static str,
    message: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = |plugin: &RefusedPlugin| {
            let RefusedPlugin {
                consumer,
                code,
                message,
            } = plugin;
            format!("error[{code}]: consumer {consumer}: {message}")
        };
        f.write_str(&self.0.iter().map(line).collect::<Vec<_>>().join("\n"))
    }
}

/// A plugin that fits its consumer, and will hardly do what is meant.
#[derive(Debug, Serialize)]
struct Doubt {
    code: &'static str,
    severity: Severity,
    consumer: Name,
    message: String,
}

impl Doubt {
    const WRITES_NOWHERE: &str = "plugin-writes-nowhere";

    fn writes_nowhere(consumer: &Name) -> Self {
        Self {
            code: Self::WRITES_NOWHERE,
            severity: Severity::Warning,
            consumer: consumer.clone(),
            message: "its plugin emits events (it imports tidegate:plugin/outbox), and it has no `writes`: every emit will fail; add `writes = \"STREAM\"`".to_owned(),
        }
    }
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "warning[{}]: consumer {}: {}",
            self.code, self.consumer, self.message
        )
    }
}

/// Proves the config, then each plugin.
///
/// # Errors
/// All that is wrong with the config; or if nothing is, all that is wrong with the plugins ([`Refused`]); or this machine can't
/// run the plugins at all.
///
/// # Cancellation
/// Safe: it only reads.
pub async fn run(_: &Args, global: &Global) -> anyhow::Result<()> {
    let loaded = global.load()?;
    let engine = Engine::new(&Settings::of(&loaded.plan))?;
    let clock = Clock::system();
    let mut proven = Vec::new();
    let (mut refused, mut doubts) = (Vec::new(), Vec::new());
    for consumer in loaded.plan.consumers.values() {
        match plugin::load(&engine, consumer, &clock, not_emitted).await {
            Ok(plugin) => {
                proven.push(ConsumerSummary::of(consumer, plugin.revision().to_string()));
                if consumer.writes.is_empty() && emits(&inspect(&consumer.plugin).await?) {
                    doubts.push(Doubt::writes_nowhere(&consumer.name));
                }
            }
            Err(error) => refused.push(RefusedPlugin::of(&consumer.name, &error)),
        }
    }
    if !refused.is_empty() {
        return Err(Refused(refused).into());
    }
    for doubt in &doubts {
        complain(&doubt.to_string());
    }
    let warnings = Warnings {
        config: &loaded.warnings,
        plugins: &doubts,
    };
    let summary = Summary::of(&loaded.plan, proven, warnings, &global.config);
    let text = if global.json {
        serde_json::to_string(&summary)?
    } else {
        summary.text()
    };
    say(&text);
    Ok(())
}

impl RefusedPlugin {
    fn of(consumer: &Name, error: &LoadError) -> Self {
        Self {
            consumer: consumer.clone(),
            code: error.code(),
            message: error.to_string(),
        }
    }
}

/// A plugin that is checked handles no event, so it has none to emit into.
fn not_emitted(_: &Event, _: &Stream) -> Result<Message, String> {
    Err("nothing is emitted while a plugin is checked".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_that_emits_to_nowhere_is_told() {
        crate::documented::documented(&[Doubt::WRITES_NOWHERE]);
        let doubt = Doubt::writes_nowhere(&Name::new("billing").unwrap());
        let text = doubt.to_string();
        assert!(
            text.starts_with("warning[plugin-writes-nowhere]: consumer billing: its plugin emits"),
            "{text}"
        );
        assert_eq!(serde_json::to_value(&doubt).unwrap()["severity"], "warning");
    }

    #[test]
    fn every_refused_plugin_is_told() {
        let refused = |consumer: &str, code| RefusedPlugin {
            consumer: Name::new(consumer).unwrap(),
            code,
            message: "no".to_owned(),
        };
        let both = Refused(vec![refused("a", "plugin-invalid"), refused("b", "plugin-no-handler")]);
        let expected = "error[plugin-invalid]: consumer a: no\nerror[plugin-no-handler]: consumer b: no";
        assert_eq!(both.to_string(), expected);
        let json = serde_json::json!([
            { "consumer": "a", "code": "plugin-invalid", "message": "no" },
            { "consumer": "b", "code": "plugin-no-handler", "message": "no" },
        ]);
        assert_eq!(serde_json::to_value(&both).unwrap(), json);
    }
}
