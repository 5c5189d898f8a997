//! Makes the proven [`Plan`] of the file as written: names resolve, numbers are within bounds, defaults are filled in, and
//! what the parts demand of each other holds. Defaults and bounds are those that [`plan`] documents.

mod broker;
mod consumer;
mod listen;
mod plugin;
mod policy;
mod stream;
mod words;

pub(crate) use self::plugin::locate as locate_plugin;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::num::{NonZeroU32, NonZeroUsize};
use std::ops::RangeInclusive;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::file::{self, File};
use super::location;
use super::nearest::nearest;
use super::problem::Code;
use super::quantity::{Period, Size, show_period, show_size};
use super::read::{At, Key, Named};
use super::sheet::{Sheet, Span};
use crate::plan::{self, LedgerPlace, Name, Plan};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Proves a file. Without a plan, the sheet has the reasons; with one, it may have some too, and then the plan is not to be used.
pub(super) fn prove(file: &At<File>, folder: &Path, sheet: &mut Sheet<'_>) -> Option<Plan> {
    let written = file.value.as_ref()?;
    let mut prover = Prover {
        sheet,
        folder,
        retention: 7 * DAY,
        retention_span: None,
        ledger_folder: None,
        varying: BTreeSet::new(),
    };
    // In this order because each looks at what came before.
    let ledger = prover.ledger(written, &file.span);
    let brokers = prover.all("broker", &written.broker, Prover::broker);
    let streams = prover.all("stream", &written.stream, |prover, name, stream| {
        prover.stream(name, stream, &brokers)
    });
    let consumers = prover.all("consumer", &written.consumer, |prover, name, consumer| {
        prover.consumer(name, consumer, &streams)
    });
    let admin = prover.admin(written.admin.as_ref());
    let ingress = prover.ingress(written.ingress.as_ref(), &streams);
    let host = prover.host(written.host.as_ref(), &consumers.proven);
    Some(Plan {
        ledger: ledger?,
        brokers: brokers.proven,
        streams: streams.proven,
        consumers: consumers.proven,
        admin: admin?,
        ingress,
        host,
    })
}

/// What the proofs share.
struct Prover<'p, 't> {
    sheet: &'p mut Sheet<'t>,
    folder: &'p Path,
    retention: Duration,
    retention_span: Option<Span>,
    ledger_folder: Option<PathBuf>,
    /// Brokers whose url has a variable in it: elsewhere they may be of another kind.
    varying: BTreeSet<Name>,
}

/// The sections of one kind: all names that stand in the file, and what could be proven.
struct Directory<T> {
    section: &'static str,
    names: Vec<String>,
    proven: BTreeMap<Name, Arc<T>>,
}

impl<T> Directory<T> {
    /// What a reference refers to. `None` without a word if the name is there but its section is wrong: that has been said.
    fn find(&self, reference: &str, span: &Span, sheet: &mut Sheet<'_>) -> Option<Arc<T>> {
        if !self.names.iter().any(|name| name == reference) {
            let section = self.section;
            let message = format!("there is no {section} \"{reference}\"");
            let hint = match nearest(reference, self.names.iter().map(String::as_str)) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => format!("add [{section}.{reference}], or name one that is there"),
            };
            sheet.error(Code::UnknownReference, span, message).hint(hint);
        }
        self.proven.get(&Name::new(reference).ok()?).cloned()
    }
}

/// A type of value that has bounds.
trait Bounded: Copy {
    /// What the plan holds of it.
    type Value: PartialOrd + Copy;

    fn value(self) -> Self::Value;

    /// As it is written.
    fn show(value: Self::Value) -> impl Display;
}

impl Bounded for u64 {
    type Value = u64;

    fn value(self) -> u64 {
        self
    }

    fn show(value: u64) -> impl Display {
        value
    }
}

impl Bounded for Size {
    type Value = u64;

    fn value(self) -> u64 {
        self.0
    }

    fn show(value: u64) -> impl Display {
        show_size(value)
    }
}

impl Bounded for Period {
    type Value = Duration;

    fn value(self) -> Duration {
        self.0
    }

    fn show(value: Duration) -> impl Display {
        show_period(value)
    }
}

impl Prover<'_, '_> {
    fn all<W, T>(
        &mut self,
        section: &'static str,
        written: &Option<At<Named<W>>>,
        mut prove: impl FnMut(&mut Self, &Name, &At<W>) -> Option<T>,
    ) -> Directory<T> {
        let mut names = Vec::new();
        let mut proven = BTreeMap::new();
        for (key, at) in given(written).map_or(&[][..], |(named, _)| &named.0) {
            names.push(key.text.clone());
            if let Some(name) = self.name(key)
                && let Some(value) = prove(self, &name, at)
            {
                proven.insert(name, Arc::new(value));
            }
        }
        Directory { section, names, proven }
    }

    fn name(&mut self, key: &Key) -> Option<Name> {
        Name::new(&key.text)
            .map_err(|error| self.sheet.error(Code::BadName, &key.span, error.to_string()))
            .ok()
    }

    fn ledger(&mut self, file: &File, top: &Span) -> Option<plan::Ledger> {
        let Some(at) = &file.ledger else {
            if !self.sheet.is_meant("ledger", top) {
                self.sheet
                    .error(Code::MissingKey, top, "[ledger] is missing")
                    .hint("add [ledger] with url = \"embedded:./data\"");
            }
            return None;
        };
        let ledger = at.value.as_ref()?;
        self.retention = self.bounded(&ledger.retention, "retention", 7 * DAY, MINUTE..=3_650 * DAY);
        self.retention_span = span_of(&ledger.retention);
        let (url, span) = self.required(&ledger.url, "url", &at.span)?;
        let folder = self.ledger_url(&url.text, span)?;
        self.ledger_folder = Some(folder.clone());
        Some(plan::Ledger {
            place: LedgerPlace::Embedded(folder),
            retention: self.retention,
            fsync: self.flag(&ledger.fsync, true),
        })
    }

    fn ledger_url(&mut self, url: &str, span: &Span) -> Option<PathBuf> {
        let (scheme, path) = url.split_once(':').unwrap_or((url, ""));
        let (code, message) = match scheme {
            "embedded" if !path.is_empty() => return Some(self.path(path)),
            "embedded" => (Code::BadUrl, "the ledger's url names no folder".to_owned()),
            "redis" | "rediss" | "postgres" | "postgresql" => {
                (Code::Unsupported, format!("this version has no {scheme}: ledger"))
            }
            _ => (Code::BadUrl, format!("\"{}\" is no ledger", location::redacted(url))),
        };
        self.sheet
            .error(code, span, message)
            .hint("write \"embedded:./data\", with the folder of your choice");
        None
    }

    fn host(&mut self, at: Option<&At<file::Host>>, consumers: &BTreeMap<Name, Arc<plan::Consumer>>) -> plan::Host {
        let none = file::Host::default();
        let host = at.and_then(|at| at.value.as_ref()).unwrap_or(&none);
        let concurrency: usize = consumers.values().map(|consumer| consumer.concurrency.get()).sum();
        let instances = u64::try_from(concurrency).unwrap_or(u64::MAX).clamp(1, 1_000);
        let instances_max = count32(self.bounded(&host.instances_max, "instances_max", instances, 1..=10_000));
        if let Some((_, span)) = given(&host.instances_max)
            && (instances_max.get() as usize) < concurrency
        {
            let message =
                format!("`instances_max` is {instances_max}, and all `concurrency` together is {concurrency}");
            self.sheet.warn(Code::OutOfBounds, span, message).hint(
                "under load, events wait for a free instance; raise it, or lower `concurrency`, if that is not meant",
            );
        }
        plan::Host {
            grace: self.bounded(&host.grace, "grace", Duration::from_secs(30), Duration::ZERO..=HOUR),
            cache: given(&host.cache).map(|(cache, _)| self.path(cache)),
            instances_max,
        }
    }

    /// The value of a key that must be there; the error stands at its section.
    fn required<'w, T>(&mut self, field: &'w Option<At<T>>, key: &str, section: &Span) -> Option<(&'w T, &'w Span)> {
        // Under another name it is there: that was said.
        if field.is_none() && !self.sheet.is_meant(key, section) {
            let message = format!("`{key}` is missing here");
            self.sheet.error(Code::MissingKey, section, message);
        }
        given(field)
    }

    /// The value of a key, or its default. Out of bounds, the default stands in, and the proof goes on.
    fn bounded<T: Bounded>(
        &mut self,
        field: &Option<At<T>>,
        key: &str,
        default: T::Value,
        bounds: RangeInclusive<T::Value>,
    ) -> T::Value {
        let Some((value, span)) = given(field) else {
            return default;
        };
        let value = value.value();
        if bounds.contains(&value) {
            return value;
        }
        let (min, max) = (T::show(*bounds.start()), T::show(*bounds.end()));
        let message = format!("`{key}` is {}", T::show(value));
        self.sheet
            .error(Code::OutOfBounds, span, message)
            .hint(format!("it must be at least {min} and at most {max}"));
        default
    }

    /// A value that a pure reader makes of text.
    fn parsed<T>(&mut self, code: Code, field: &Option<At<String>>, parse: fn(&str) -> Result<T, String>) -> Option<T> {
        let (text, span) = given(field)?;
        parse(text)
            .map_err(|message| self.sheet.error(code, span, message))
            .ok()
    }

    fn flag(&self, field: &Option<At<bool>>, default: bool) -> bool {
        given(field).map_or(default, |(flag, _)| *flag)
    }

    /// A path relative to the config's folder, without `.` in it, so that equal paths are equal.
    fn path(&self, path: &str) -> PathBuf {
        let joined = self.folder.join(path);
        let clean: PathBuf = joined
            .components()
            .filter(|component| *component != Component::CurDir)
            .collect();
        if clean.as_os_str().is_empty() {
            PathBuf::from(".")
        } else {
            clean
        }
    }

    /// The path of a file that must exist.
    fn file(&mut self, field: &Option<At<String>>) -> Option<PathBuf> {
        let (path, span) = given(field)?;
        let path = self.path(path);
        if !path.is_file() {
            let message = format!("there is no file {}", path.display());
            self.sheet.error(Code::FileNotFound, span, message);
        }
        Some(path)
    }

    /// Complains about keys that are for another kind of broker.
    fn misplaced(&mut self, keys: &[(&str, Option<Span>)], kind: &str) {
        for (key, span) in keys {
            if let Some(span) = span {
                let message = format!("`{key}` has no meaning on {kind}");
                self.sheet.error(Code::MisplacedKey, span, message).hint(
                    "leave it out; or give the broker's url a variable, as in \"${NATS_URL:-embedded:}\", if the file serves several environments",
                );
            }
        }
    }
}

/// A value that was given and could be read.
fn given<T>(field: &Option<At<T>>) -> Option<(&T, &Span)> {
    let at = field.as_ref()?;
    Some((at.value.as_ref()?, &at.span))
}

/// Where a key's value stands.
fn span_of<T>(field: &Option<At<T>>) -> Option<Span> {
    field.as_ref().map(|at| at.span.clone())
}

/// A number whose lower bound was at least 1.
fn count(number: u64) -> NonZeroUsize {
    NonZeroUsize::new(whole(number)).unwrap_or(NonZeroUsize::MIN)
}

/// A number whose bounds were within 1 and `u32::MAX`.
fn count32(number: u64) -> NonZeroU32 {
    u32::try_from(number)
        .ok()
        .and_then(NonZeroU32::new)
        .unwrap_or(NonZeroU32::MIN)
}

/// A number whose upper bound fits any machine that Tidegate runs on.
fn whole(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
