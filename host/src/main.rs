//! The binary: arguments, logs, runtime, command, exit code. Everything else is in the library.

use std::process::ExitCode;

use clap::Parser;
use tidegate::cli::{Cli, logs};
use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    // Wrong arguments end here, with exit code 2.
    let cli = Cli::parse();
    logs::start(cli.global.log_format, cli.command.log_level());
    let ended = match tokio::runtime::Runtime::new() {
        Ok(runtime) => {
            let ended = runtime.block_on(cli.command.run(&cli.global));
            // What still computes on its threads, a plugin being compiled say, is of no use to anybody any more.
            runtime.shutdown_background();
            ended
        }
        Err(error) => Err(error.into()),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => cli.global.report(&error),
    }
}
