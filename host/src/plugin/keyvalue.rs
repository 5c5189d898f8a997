//! `wasi:keyvalue` under its two names, onto the attempt's `Transaction`.

use wasmtime::component::Resource;

use super::bindings::keyvalue::wasi::keyvalue as current;
use super::bindings::keyvalue_draft::wasi::keyvalue as draft;
use super::bindings::{Bucket, Cas};
use super::failure::Stop;
use super::instance::Guest;
use super::state::{self, Room, Transaction};

/// Keys of one call of the batch functions. Where the ledger answers from memory, a call never waits and so never lets others have the
/// processor: with this many keys it ends within some milliseconds.
const BATCH_MAX: usize = 1_000;

/// One pair of a guest's `get-many`.
type Pair = Option<(String, Vec<u8>)>;

impl Guest {
    /// A guest without the grant has no bucket to come here with.
    fn transaction(&mut self) -> wasmtime::Result<(&mut Transaction, &mut Room)> {
        let Self { transaction, room, .. } = self;
        let transaction = transaction
            .as_mut()
            .ok_or_else(|| wasmtime::format_err!("state was used outside of an attempt"))?;
        Ok((transaction, room))
    }

    fn bucket(&self, bucket: &Resource<Bucket>) -> wasmtime::Result<Bucket> {
        Ok(self.table.get(bucket)?.clone())
    }

    fn open_bucket<E: From<Told>>(&mut self, identifier: String) -> wasmtime::Result<Result<Resource<Bucket>, E>> {
        match state::open(identifier) {
            Ok(bucket) => Ok(Ok(self.table.push(bucket)?)),
            Err(error) => self.tell(Err(error)),
        }
    }

    async fn get<E: From<Told>>(
        &mut self,
        bucket: &Resource<Bucket>,
        key: String,
    ) -> wasmtime::Result<Result<Option<Vec<u8>>, E>> {
        let bucket = self.bucket(bucket)?;
        let value = self.transaction()?.0.get(&bucket, key).await;
        self.tell(value.map(|value| value.map(Vec::from)))
    }

    fn set<E: From<Told>>(
        &mut self,
        bucket: &Resource<Bucket>,
        key: String,
        value: Vec<u8>,
    ) -> wasmtime::Result<Result<(), E>> {
        let bucket = self.bucket(bucket)?;
        let (transaction, room) = self.transaction()?;
        let set = transaction.set(&bucket, key, value, room);
        self.tell(set)
    }

    fn delete<E: From<Told>>(&mut self, bucket: &Resource<Bucket>, key: String) -> wasmtime::Result<Result<(), E>> {
        let bucket = self.bucket(bucket)?;
        let (transaction, room) = self.transaction()?;
        let deleted = transaction.delete(&bucket, key, room);
        self.tell(deleted)
    }

    async fn add<E: From<Told>>(
        &mut self,
        bucket: &Resource<Bucket>,
        key: String,
        delta: i64,
    ) -> wasmtime::Result<Result<i64, E>> {
        let bucket = self.bucket(bucket)?;
        let (transaction, room) = self.transaction()?;
        let sum = transaction.increment(&bucket, key, delta, room).await;
        self.tell(sum)
    }

    async fn get_pairs<E: From<Told>>(
        &mut self,
        bucket: &Resource<Bucket>,
        keys: Vec<String>,
    ) -> wasmtime::Result<Result<Vec<Pair>, E>> {
        if let Err(error) = self.batch(keys.len())? {
            return Ok(Err(error));
        }
        // What the guest has no memory for is not gathered in ours.
        let mut room = self.shared.consumer.limits.memory;
        let mut pairs = Vec::with_capacity(keys.len());
        for key in keys {
            let value = match self.get(bucket, key.clone()).await? {
                Ok(value) => value,
                Err(error) => return Ok(Err(error)),
            };
            let bytes = value.as_ref().map_or(0, Vec::len);
            match room.checked_sub(bytes) {
                Some(left) => room = left,
                None => {
                    let text = "the values are more than limits.memory holds";
                    return self.tell(Err(state::Error::Limit(text.to_owned())));
                }
            }
            pairs.push(value.map(|value| (key, value)));
        }
        Ok(Ok(pairs))
    }

    fn set_pairs<E: From<Told>>(
        &mut self,
        bucket: &Resource<Bucket>,
        pairs: Vec<(String, Vec<u8>)>,
    ) -> wasmtime::Result<Result<(), E>> {
        if let Err(error) = self.batch(pairs.len())? {
            return Ok(Err(error));
        }
        for (key, value) in pairs {
            if let Err(error) = self.set(bucket, key, value)? {
                return Ok(Err(error));
            }
        }
        Ok(Ok(()))
    }

    fn delete_keys<E: From<Told>>(
        &mut self,
        bucket: &Resource<Bucket>,
        keys: Vec<String>,
    ) -> wasmtime::Result<Result<(), E>> {
        if let Err(error) = self.batch(keys.len())? {
            return Ok(Err(error));
        }
        for key in keys {
            if let Err(error) = self.delete(bucket, key)? {
                return Ok(Err(error));
            }
        }
        Ok(Ok(()))
    }

    fn batch<E: From<Told>>(&mut self, count: usize) -> wasmtime::Result<Result<(), E>> {
        if count <= BATCH_MAX {
            return Ok(Ok(()));
        }
        let text = format!("{count} keys in one call: at most {BATCH_MAX} are allowed");
        self.tell(Err(state::Error::Limit(text)))
    }

    /// Tells the guest, or ends the attempt if it was the ledger that failed.
    fn tell<T, E: From<Told>>(&mut self, result: Result<T, state::Error>) -> wasmtime::Result<Result<T, E>> {
        match result {
            Ok(value) => Ok(Ok(value)),
            Err(state::Error::Invalid(text)) => Ok(Err(Told(text).into())),
            Err(state::Error::Limit(text)) => {
                self.refused_effect(&text);
                Ok(Err(Told(text).into()))
            }
            Err(state::Error::Unavailable(error)) => Err(Stop::Ledger(error.to_string()).into()),
        }
    }
}

/// What a guest is told when an operation does not go through.
struct Told(String);

impl From<Told> for current::store::Error {
    fn from(Told(text): Told) -> Self {
        Self::Other(text)
    }
}

impl From<Told> for draft::store::Error {
    fn from(Told(text): Told) -> Self {
        Self::Other(text)
    }
}

impl current::store::Host for Guest {
    async fn open(&mut self, identifier: String) -> wasmtime::Result<Result<Resource<Bucket>, current::store::Error>> {
        self.open_bucket(identifier)
    }
}

impl current::store::HostBucket for Guest {
    async fn get(
        &mut self,
        bucket: Resource<Bucket>,
        key: String,
    ) -> wasmtime::Result<Result<Option<Vec<u8>>, current::store::Error>> {
        Self::get(self, &bucket, key).await
    }

    async fn set(
        &mut self,
        bucket: Resource<Bucket>,
        key: String,
        value: Vec<u8>,
    ) -> wasmtime::Result<Result<(), current::store::Error>> {
        Self::set(self, &bucket, key, value)
    }

    async fn delete(
        &mut self,
        bucket: Resource<Bucket>,
        key: String,
    ) -> wasmtime::Result<Result<(), current::store::Error>> {
        Self::delete(self, &bucket, key)
    }

    async fn exists(
        &mut self,
        bucket: Resource<Bucket>,
        key: String,
    ) -> wasmtime::Result<Result<bool, current::store::Error>> {
        let value = Self::get(self, &bucket, key).await?;
        Ok(value.map(|value| value.is_some()))
    }

    async fn list_keys(
        &mut self,
        bucket: Resource<Bucket>,
        cursor: Option<String>,
    ) -> wasmtime::Result<Result<current::store::KeyResponse, current::store::Error>> {
        let bucket = self.bucket(&bucket)?;
        let page = self.transaction()?.0.list(&bucket, cursor).await;
        let page = page.map(|(keys, cursor)| current::store::KeyResponse { keys, cursor });
        self.tell(page)
    }

    async fn drop(&mut self, bucket: Resource<Bucket>) -> wasmtime::Result<()> {
        self.table.delete(bucket)?;
        Ok(())
    }
}

impl current::atomics::Host for Guest {
    async fn increment(
        &mut self,
        bucket: Resource<Bucket>,
        key: String,
        delta: i64,
    ) -> wasmtime::Result<Result<i64, current::store::Error>> {
        self.add(&bucket, key, delta).await
    }

    async fn swap(
        &mut self,
        cas: Resource<Cas>,
        value: Vec<u8>,
    ) -> wasmtime::Result<Result<(), current::atomics::CasError>> {
        let Cas { bucket, key } = self.table.delete(cas)?;
        let (transaction, room) = self.transaction()?;
        // The swap holds only if the key is as it was: the read makes the commit see to that.
        let swapped = match transaction.get(&bucket, key.clone()).await {
            Ok(_) => transaction.set(&bucket, key, value, room),
            Err(error) => Err(error),
        };
        let told = self.tell(swapped)?;
        Ok(told.map_err(current::atomics::CasError::StoreError))
    }
}

impl current::atomics::HostCas for Guest {
    async fn new(
        &mut self,
        bucket: Resource<Bucket>,
        key: String,
    ) -> wasmtime::Result<Result<Resource<Cas>, current::store::Error>> {
        let bucket = self.bucket(&bucket)?;
        Ok(Ok(self.table.push(Cas { bucket, key })?))
    }

    async fn current(
        &mut self,
        cas: Resource<Cas>,
    ) -> wasmtime::Result<Result<Option<Vec<u8>>, current::store::Error>> {
        let Cas { bucket, key } = self.table.get(&cas)?;
        let (bucket, key) = (bucket.clone(), key.clone());
        let value = self.transaction()?.0.get(&bucket, key).await;
        self.tell(value.map(|value| value.map(Vec::from)))
    }

    async fn drop(&mut self, cas: Resource<Cas>) -> wasmtime::Result<()> {
        self.table.delete(cas)?;
        Ok(())
    }
}

impl current::batch::Host for Guest {
    async fn get_many(
        &mut self,
        bucket: Resource<Bucket>,
        keys: Vec<String>,
    ) -> wasmtime::Result<Result<Vec<Pair>, current::store::Error>> {
        self.get_pairs(&bucket, keys).await
    }

    async fn set_many(
        &mut self,
        bucket: Resource<Bucket>,
        pairs: Vec<(String, Vec<u8>)>,
    ) -> wasmtime::Result<Result<(), current::store::Error>> {
        self.set_pairs(&bucket, pairs)
    }

    async fn delete_many(
        &mut self,
        bucket: Resource<Bucket>,
        keys: Vec<String>,
    ) -> wasmtime::Result<Result<(), current::store::Error>> {
        self.delete_keys(&bucket, keys)
    }
}

impl draft::store::Host for Guest {
    async fn open(&mut self, identifier: String) -> wasmtime::Result<Result<Resource<Bucket>, draft::store::Error>> {
        self.open_bucket(identifier)
    }
}

impl draft::store::HostBucket for Guest {
    async fn get(
        &mut self,
        bucket: Resource<Bucket>,
        key: String,
    ) -> wasmtime::Result<Result<Option<Vec<u8>>, draft::store::Error>> {
        Self::get(self, &bucket, key).await
    }

    async fn set(
        &mut self,
        bucket: Resource<Bucket>,
        key: String,
        value: Vec<u8>,
    ) -> wasmtime::Result<Result<(), draft::store::Error>> {
        Self::set(self, &bucket, key, value)
    }

    async fn delete(
        &mut self,
        bucket: Resource<Bucket>,
        key: String,
    ) -> wasmtime::Result<Result<(), draft::store::Error>> {
        Self::delete(self, &bucket, key)
    }

    async fn exists(
        &mut self,
        bucket: Resource<Bucket>,
        key: String,
    ) -> wasmtime::Result<Result<bool, draft::store::Error>> {
        let value = Self::get(self, &bucket, key).await?;
        Ok(value.map(|value| value.is_some()))
    }

    async fn list_keys(
        &mut self,
        bucket: Resource<Bucket>,
        cursor: Option<u64>,
    ) -> wasmtime::Result<Result<draft::store::KeyResponse, draft::store::Error>> {
        let bucket = self.bucket(&bucket)?;
        let page = self.transaction()?.0.list_page(&bucket, cursor).await;
        let page = page.map(|(keys, cursor)| draft::store::KeyResponse { keys, cursor });
        self.tell(page)
    }

    async fn drop(&mut self, bucket: Resource<Bucket>) -> wasmtime::Result<()> {
        self.table.delete(bucket)?;
        Ok(())
    }
}

impl draft::atomics::Host for Guest {
    async fn increment(
        &mut self,
        bucket: Resource<Bucket>,
        key: String,
        delta: u64,
    ) -> wasmtime::Result<Result<u64, draft::store::Error>> {
        let unfit = |what: &str| draft::store::Error::Other(format!("{what} does not fit"));
        let Ok(delta) = i64::try_from(delta) else {
            return Ok(Err(unfit("the increment")));
        };
        let sum = match self.add(&bucket, key.clone(), delta).await? {
            Ok(sum) => sum,
            Err(error) => return Ok(Err(error)),
        };
        if let Ok(sum) = u64::try_from(sum) {
            return Ok(Ok(sum));
        }
        // What is answered with an error must not be done: it is taken back.
        let undone = self.add(&bucket, key, -delta).await?;
        Ok(undone.and(Err(unfit("a negative counter"))))
    }
}

impl draft::batch::Host for Guest {
    async fn get_many(
        &mut self,
        bucket: Resource<Bucket>,
        keys: Vec<String>,
    ) -> wasmtime::Result<Result<Vec<Pair>, draft::store::Error>> {
        self.get_pairs(&bucket, keys).await
    }

    async fn set_many(
        &mut self,
        bucket: Resource<Bucket>,
        pairs: Vec<(String, Vec<u8>)>,
    ) -> wasmtime::Result<Result<(), draft::store::Error>> {
        self.set_pairs(&bucket, pairs)
    }

    async fn delete_many(
        &mut self,
        bucket: Resource<Bucket>,
        keys: Vec<String>,
    ) -> wasmtime::Result<Result<(), draft::store::Error>> {
        self.delete_keys(&bucket, keys)
    }
}
