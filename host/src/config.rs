//! The config: a TOML file becomes a proven [`Plan`], or everything that is wrong with it is said at once.
//!
//! The way: [`toml`] parses with places; `read` fills the sections of `file`, interpolating variables; `prove` resolves names,
//! fills in defaults and checks bounds. Each step notes what it finds on the `sheet` and goes on, so that a person mends a file
//! in one round. `docs/errors.md` has a heading per [`Code`].

mod file;
mod interpolate;
mod location;
mod nearest;
mod problem;
mod prove;
mod quantity;
mod read;
mod schema;
mod sheet;

#[cfg(test)]
mod tests;

use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use self::read::{At, Reader, Written};
use self::sheet::Sheet;
use crate::plan::Plan;

pub(crate) use self::nearest::nearest;
pub use self::problem::{Code, Place, Problem, Problems, Severity};
pub(crate) use self::prove::locate_plugin;
pub use self::quantity::{show_period, show_size};
pub use self::schema::schema;

/// A config that can be used.
#[derive(Debug)]
pub struct Loaded {
    /// What to run.
    pub plan: Plan,
    /// What someone should look at all the same, by place.
    pub warnings: Vec<Problem>,
}

/// Reads and proves a config file. `env` gives the environment's variables; paths in the file are relative to its folder.
///
/// # Errors
/// Everything that is wrong with it, by place: for people to mend.
pub fn load(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Loaded, Problems> {
    let text = std::fs::read_to_string(path).map_err(|error| unreadable(path, &error))?;
    parse(&text, path, env)
}

/// Proves a config that is in memory. `origin` is the file it is said to come from: it is named in problems, and paths are
/// relative to its folder.
///
/// # Errors
/// As for [`load`].
pub fn parse(text: &str, origin: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Loaded, Problems> {
    let mut sheet = Sheet::new(text, origin.display().to_string());
    let (document, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        // A table that was only half understood would give problems that are none.
        sheet.conceal_values();
        for error in errors {
            let span = error.span().unwrap_or_default();
            sheet.error(Code::Syntax, &span, error.message());
        }
        return Err(Problems(sheet.into_problems().0));
    }
    let document = Spanned::new(document.span(), DeValue::Table(document.into_inner()));
    let mut reader = Reader::new(sheet, env);
    let file = At {
        value: file::File::read(&document, &mut reader),
        span: 0..0,
    };
    let folder = origin.parent().unwrap_or(Path::new(""));
    let mut sheet = reader.sheet;
    let plan = prove::prove(&file, folder, &mut sheet);
    let (errors, warnings) = sheet.into_problems();
    match plan {
        Some(plan) if errors.is_empty() => Ok(Loaded { plan, warnings }),
        _ => Err(Problems(errors)),
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> Problems {
    let hint = match error.kind() {
        std::io::ErrorKind::NotFound => "name another file with --config FILE or TIDEGATE_CONFIG",
        std::io::ErrorKind::InvalidData => "save it as UTF-8",
        _ => "mend its permissions, or name another file with --config FILE",
    };
    Problems(vec![Problem {
        code: Code::Unreadable,
        severity: Severity::Error,
        message: format!("the config can't be read: {error}"),
        file: path.display().to_string(),
        place: None,
        hint: Some(hint.to_owned()),
    }])
}
