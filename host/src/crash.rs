//! Named places at which a test has this process die, as by SIGKILL: no destructor runs, nothing is flushed.
//!
//! In a debug build, `TIDEGATE_CRASH_AT=name` in the environment names the place, `name:3` the third time that it is come to. In
//! a release build `at` is empty. `docs/reliability-crash.md` says what each leaves behind.

macro_rules! points {
    ($($(#[$doc:meta])* $point:ident = $name:literal,)+) => {
        /// A place where the process can be made to die.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Point {
            $($(#[$doc])* $point,)+
        }

        impl Point {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$point,)+];

            /// Its name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$point => $name,)+
                }
            }
        }
    };
}

points! {
    /// The folder of a new store says that it is to be made; nothing of it is there.
    StoreBegun = "store-begun",
    /// The store is whole and can be read; its folder does not say yet that it is open.
    StoreMade = "store-made",
    /// Deliveries are taken; the ledger does not know.
    Taken = "taken",
    /// The ledger knows how far was taken; nothing runs yet.
    Marked = "marked",
    /// It is on record that an attempt begins, as an earlier host may have died of its event.
    Begun = "begun",
    /// Attempts have ended; nothing is written of them.
    Attempted = "attempted",
    /// A batch is about to be committed.
    Committing = "committing",
    /// A batch is durable; whoever waits for it was not told.
    Durable = "durable",
    /// Everybody was told of a batch, and the next one is not begun.
    BetweenCommits = "between-commits",
    /// Effects are durable; no relay has their outputs.
    Committed = "committed",
    /// A dead letter is durable; it is not published, its delivery not settled.
    Buried = "buried",
    /// Outputs are about to be handed to their broker.
    Publishing = "publishing",
    /// Outputs are confirmed by their broker; nobody noted it.
    Published = "published",
    /// That they are confirmed is noted in memory; their rows are still there, and whoever waits was not told.
    Confirmed = "confirmed",
    /// Deliveries are about to be settled.
    Settling = "settling",
    /// Deliveries are settled.
    Settled = "settled",
    /// Events are about to be moved into the parking.
    Parking = "parking",
    /// An event is durable in the parking; its delivery is not settled.
    Parked = "parked",
    /// Events are loaded from the parking; they are still there.
    Loaded = "loaded",
    /// Dead letters are about to be put back.
    Redriving = "redriving",
    /// Some were put back; the others that were asked for, and the consumers, come after.
    Redriven = "redriven",
    /// Messages are about to be appended to a log.
    Appending = "appending",
    /// Messages are durable in a log; whoever published them was not told.
    Appended = "appended",
    /// A log is about to be trimmed.
    Trimming = "trimming",
    /// A log is trimmed.
    Trimmed = "trimmed",
    /// The tables of a bucket are made; the batch that names it is not committed.
    BucketMade = "bucket-made",
    /// Some records of a bucket that is to go are carried forward.
    BucketCarried = "bucket-carried",
    /// All of them are; the bucket is still there.
    BucketDropping = "bucket-dropping",
    /// The batch that forgets a bucket is durable; its tables are still there.
    BucketForgotten = "bucket-forgotten",
    /// A bucket is gone.
    BucketDropped = "bucket-dropped",
    /// The consumers are drained; the ledger is open.
    Drained = "drained",
    /// The last batch of a clean stop is durable; the folder does not say that it is closed.
    Closing = "closing",
    /// The folder says that it is closed.
    Closed = "closed",
}

/// Dies here if it was asked to.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub(crate) fn at(_: Point) {}

#[cfg(debug_assertions)]
pub(crate) use armed::at;

#[cfg(debug_assertions)]
mod armed {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::Point;

    const VARIABLE: &str = "TIDEGATE_CRASH_AT";

    /// Where to die, and how often to pass it before.
    struct Order {
        point: Point,
        left: AtomicU64,
    }

    static ORDER: LazyLock<Option<Order>> = LazyLock::new(|| {
        let text = std::env::var(VARIABLE).ok()?;
        let order = Order::parse(&text);
        if order.is_none() {
            // A test that names no place must not go on as if it had come to it.
            eprintln!("{VARIABLE}={text} names no crash point");
            std::process::abort();
        }
        order
    });

    impl Order {
        fn parse(text: &str) -> Option<Self> {
            let (name, time) = text.split_once(':').unwrap_or((text, "1"));
            let point = Point::ALL.iter().find(|point| point.name() == name)?;
            Some(Self {
                point: *point,
                left: AtomicU64::new(time.parse().ok().filter(|time| *time > 0)?),
            })
        }
    }

    /// Dies here if it was asked to.
    pub(crate) fn at(point: Point) {
        let Some(order) = ORDER.as_ref().filter(|order| order.point == point) else {
            return;
        };
        if order.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            eprintln!("crash point {}", point.name());
            die();
        }
    }

    /// SIGKILL, as from outside. An abort would write a core and say something else to whoever waits.
    fn die() -> ! {
        if let (Ok(pid), Ok(mut system)) = (sysinfo::get_current_pid(), sysinfo::System::new()) {
            system.refresh_processes(sysinfo::ProcessesToUpdate::Some(&[pid]), false);
            if let Some(process) = system.process(pid) {
                process.kill();
            }
        }
        std::process::abort()
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn an_order_names_a_point_and_a_time() {
            let parsed = |text| Order::parse(text).map(|order| (order.point, order.left.into_inner()));
            assert_eq!(parsed("taken"), Some((Point::Taken, 1)));
            assert_eq!(parsed("between-commits:7"), Some((Point::BetweenCommits, 7)));
            for wrong in ["", "nowhere", "taken:", "taken:0", "taken:x"] {
                assert_eq!(parsed(wrong), None, "{wrong}");
            }
        }
    }
}
