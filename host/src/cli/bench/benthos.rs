//! A contender from outside: the engine of Redpanda Connect (Benthos), which drops ids that it has in memory. Its source is in
//! `examples/handwritten/benthos`, and its build needs Go, which the other contenders do not: it takes part only if it is asked for.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use tokio::process::Command;

use super::contender::Place;
use crate::cli::complain;

/// What is built, and the config that it runs with.
#[derive(Clone)]
pub(super) struct Benthos {
    program: PathBuf,
    config: PathBuf,
}

impl Benthos {
    /// Builds it. Quick when it is built already; the first time, Go fetches the modules.
    ///
    /// # Errors
    /// There is no Go, or the build fails.
    pub(super) async fn build(repository: &Path) -> anyhow::Result<Self> {
        Self::build_with("go", repository).await
    }

    async fn build_with(go: &str, repository: &Path) -> anyhow::Result<Self> {
        complain("building the engine of Redpanda Connect");
        let source = repository.join("examples/handwritten/benthos");
        let program = repository.join("target/release/benthos");
        let mut command = Command::new(go);
        command
            .args(["build", "-trimpath", "-o"])
            .arg(&program)
            .arg(".")
            .current_dir(&source);
        let status = command.status().await.with_context(|| {
            format!(
                "{go} can't be run: benthos is built from source, install Go from https://go.dev or leave out --with"
            )
        })?;
        ensure!(status.success(), "benthos: the build failed, go says why above");
        Ok(Self {
            program,
            config: source.join("config.yaml"),
        })
    }

    /// The process of one run.
    pub(super) fn command(&self, place: &Place, server: &str) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg("run")
            .arg(&self.config)
            .env("NATS_URL", server)
            .env("ORDERS", &place.orders)
            .env("INVOICES", &place.invoices);
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_missing_go_is_named() {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let error = Benthos::build_with("no-such-go", &repository).await.err().unwrap();
        assert!(error.to_string().contains("install Go"), "{error}");
    }
}
