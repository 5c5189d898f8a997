//! The disk that a host's folder is on: what a power cut leaves of it, and how it fails. `tests/disk/shim.c` is preloaded into the
//! host and keeps what is durable; here it is put in the folder's place.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;

use crate::chance::Chance;
use crate::host::Home;

/// What a disk writes whole or not at all, in bytes.
const BLOCK: usize = 4096;

/// The shim, built as it stands.
fn shim() -> &'static Path {
    static SHIM: OnceLock<PathBuf> = OnceLock::new();
    SHIM.get_or_init(|| {
        let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
        let folder = tests.join("../target/disk");
        fs::create_dir_all(&folder).expect("the target folder can be written");
        let (own, path) = (
            folder.join(format!("shim-{}.so", std::process::id())),
            folder.join("shim.so"),
        );
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-o"])
            .arg(&own)
            .arg(tests.join("disk/shim.c"))
            .args(["-ldl", "-lpthread"])
            .status();
        assert!(built.is_ok_and(|status| status.success()), "the shim does not build");
        fs::rename(own, &path).expect("the target folder can be written");
        path.canonicalize().expect("it is there")
    })
}

/// The environment of a host whose wall clock is ahead.
#[must_use]
pub fn ahead(seconds: u64) -> Vec<(&'static str, String)> {
    vec![
        ("LD_PRELOAD", shim().display().to_string()),
        ("TIDEGATE_CLOCK_AHEAD", seconds.to_string()),
    ]
}

/// How a disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// As it should be.
    Normal,
    /// Writes fail: no space.
    Full,
    /// Writes and syncs fail: read-only.
    ReadOnly,
    /// Each sync takes a second.
    Slow,
    /// Syncs fail.
    NoSync,
}

/// What a power cut takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Everything that was not synced: bytes by a sync of their file, names by one of their folder.
    Everything,
    /// Bytes that were not synced; all names are there, as on a file system that writes its own data first.
    Bytes,
    /// Of each file some blocks, of each folder its names or not, as chance has it.
    Some(u64),
}

/// A disk under a home. One host at a time is on it.
#[derive(Debug)]
pub struct Disk {
    folder: tempfile::TempDir,
    root: PathBuf,
    keeps: bool,
}

impl Disk {
    /// A disk that can fail.
    ///
    /// # Panics
    /// If there is no room for a file.
    #[must_use]
    pub fn failing(home: &Home) -> Self {
        Self::new(home, false)
    }

    /// A disk that forgets what was not synced, as soon as it is [`cut`](Self::cut).
    ///
    /// # Panics
    /// If there is no room for a file.
    #[must_use]
    pub fn forgetful(home: &Home) -> Self {
        Self::new(home, true)
    }

    fn new(home: &Home, keeps: bool) -> Self {
        let disk = Self {
            folder: tempfile::tempdir().expect("a folder can be made"),
            root: home.path().canonicalize().expect("it is there"),
            keeps,
        };
        disk.set(Mode::Normal);
        disk
    }

    /// What a host needs in its environment to be on it.
    #[must_use]
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let mut environment = vec![
            ("LD_PRELOAD", shim().display().to_string()),
            ("TIDEGATE_DISK_ROOT", self.root.display().to_string()),
            ("TIDEGATE_DISK_CONTROL", self.control().display().to_string()),
        ];
        if self.keeps {
            environment.push(("TIDEGATE_DISK_SHADOW", self.shadow().display().to_string()));
        }
        environment
    }

    fn control(&self) -> PathBuf {
        self.folder.path().join("control")
    }

    fn shadow(&self) -> PathBuf {
        self.folder.path().join("shadow")
    }

    /// How it is from now on.
    ///
    /// # Panics
    /// If the control can't be written.
    pub fn set(&self, mode: Mode) {
        let byte = match mode {
            Mode::Normal => b"n",
            Mode::Full => b"f",
            Mode::ReadOnly => b"r",
            Mode::Slow => b"s",
            Mode::NoSync => b"e",
        };
        let control = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.control());
        // In place: the host has it mapped.
        control
            .and_then(|file| file.write_all_at(byte, 0))
            .expect("the control can be written");
    }

    /// The power is cut, after the host was killed: its folder is from now on what the loss leaves of it.
    ///
    /// # Panics
    /// If the disk keeps nothing.
    pub fn cut(&self, loss: Loss) {
        assert!(self.keeps, "nothing was kept");
        let mut rest = Rest {
            shadow: self.shadow(),
            live: HashMap::new(),
            loss,
            chance: Chance::seeded(match loss {
                Loss::Some(seed) => seed,
                _ => 0,
            }),
        };
        rest.survey(&self.root);
        let left = self.folder.path().join("left");
        rest.folder(&id(&self.root), &left);
        // The config is not the host's to lose.
        let data = self.root.join("data");
        let _ = fs::remove_dir_all(&data);
        if left.join("data").exists() {
            fs::rename(left.join("data"), data).expect("one file system");
        }
        fs::remove_dir_all(left).expect("it was made");
        fs::remove_dir_all(self.shadow()).expect("the shim made it");
    }
}

/// What is left after a power cut, in the making.
struct Rest {
    shadow: PathBuf,
    live: HashMap<String, PathBuf>,
    loss: Loss,
    chance: Chance,
}

impl Rest {
    /// Notes where everything is that the system had in memory.
    fn survey(&mut self, path: &Path) {
        self.live.insert(id(path), path.to_owned());
        if path.is_dir() {
            for entry in fs::read_dir(path).expect("a folder") {
                self.survey(&entry.expect("a name").path());
            }
        }
    }

    fn folder(&mut self, id: &str, to: &Path) {
        fs::create_dir(to).expect("it is new");
        let has_live_names = match self.loss {
            Loss::Everything => false,
            Loss::Bytes => true,
            Loss::Some(_) => self.chance.toss(),
        };
        let live = self.live.get(id).filter(|_| has_live_names);
        let names = match live {
            Some(live) => live_names(live),
            None => self.kept_names(id),
        };
        for Name { is_folder, id, name } in names {
            match is_folder {
                true => self.folder(&id, &to.join(name)),
                false => self.file(&id, &to.join(name)),
            }
        }
    }

    fn kept_names(&self, id: &str) -> Vec<Name> {
        let names = fs::read_to_string(self.shadow.join("names").join(id));
        // A folder that was never synced is empty.
        let names = names.unwrap_or_default();
        let line = |line: &str| {
            let mut words = line.splitn(3, ' ');
            let mut word = || words.next().expect("a line of the shim's").to_owned();
            Name {
                is_folder: word() == "d",
                id: word(),
                name: word(),
            }
        };
        names.lines().map(line).collect()
    }

    fn file(&mut self, id: &str, to: &Path) {
        let kept = self.shadow.join("bytes").join(id);
        if kept.exists() {
            let copied = Command::new("cp").arg("--sparse=always").arg(&kept).arg(to).status();
            assert!(copied.is_ok_and(|status| status.success()), "it can't be copied");
        } else {
            File::create(to).expect("it is new");
        }
        if let (Loss::Some(_), Some(live)) = (self.loss, self.live.get(id).cloned()) {
            self.spread(&live, to);
        }
    }

    /// Some of the blocks that were not synced reached the disk all the same, in no order.
    fn spread(&mut self, live: &Path, to: &Path) {
        let read = |path: &Path| {
            let mut bytes = Vec::new();
            File::open(path)
                .and_then(|mut file| file.read_to_end(&mut bytes))
                .expect("a file");
            bytes
        };
        let (new, old) = (read(live), read(to));
        let file = File::options().write(true).open(to).expect("a file");
        for (number, block) in new.chunks(BLOCK).enumerate() {
            let at = number * BLOCK;
            let was = old.get(at..old.len().min(at + BLOCK)).unwrap_or_default();
            if was != block && self.chance.toss() {
                file.write_all_at(block, at as u64).expect("a file");
            }
        }
    }
}

struct Name {
    is_folder: bool,
    id: String,
    name: String,
}

fn live_names(folder: &Path) -> Vec<Name> {
    let entries = fs::read_dir(folder).expect("a folder");
    let name = |entry: std::io::Result<fs::DirEntry>| {
        let entry = entry.expect("a name");
        Name {
            is_folder: entry.path().is_dir(),
            id: id(&entry.path()),
            name: entry.file_name().into_string().expect("the engine's names are text"),
        }
    };
    entries.map(name).collect()
}

/// As the shim knows it.
fn id(path: &Path) -> String {
    let data = fs::symlink_metadata(path).expect("it is there");
    let born = data.created().expect("the file system knows when");
    let born = born.duration_since(SystemTime::UNIX_EPOCH).expect("it is not that old");
    format!("{}-{}.{:09}", data.ino(), born.as_secs(), born.subsec_nanos())
}
