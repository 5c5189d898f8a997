//! `tidegate check`: proves the config and every plugin against it, and says what would run. Touches no broker and no ledger.

mod summary;

use std::fmt;

use serde::Serialize;

use self::summary::{ConsumerSummary, Summary};
use super::{Global, say};
use crate::clock::Clock;
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
    let mut refused = Vec::new();
    for consumer in loaded.plan.consumers.values() {
        match plugin::load(&engine, consumer, &clock, not_emitted).await {
            Ok(plugin) => proven.push(ConsumerSummary::of(consumer, plugin.revision().to_string())),
            Err(error) => refused.push(RefusedPlugin::of(&consumer.name, &error)),
        }
    }
    if !refused.is_empty() {
        return Err(Refused(refused).into());
    }
    let summary = Summary::of(&loaded.plan, proven, &loaded.warnings, &global.config);
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
