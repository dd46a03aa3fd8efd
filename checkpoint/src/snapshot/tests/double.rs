//! An object store that fails as it is told, and lets others go on before and after each request.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use parking_lot::Mutex;

/// How a request fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// It is not carried out, and answered by an error.
    Refuse,
    /// It is carried out, and answered by an error: a timeout after the deed.
    LoseAnswer,
    /// Neither it nor any later one is carried out, until the double is disarmed.
    LoseConnection,
}

/// Which request fails.
#[derive(Debug, Clone)]
enum Plan {
    Never,
    /// The request of this number.
    At(u64, Fault),
    /// The first put of a path that contains this.
    Put(&'static str, Fault),
}

/// Wraps a store.
#[derive(Debug)]
pub(super) struct Faulty {
    inner: Arc<dyn ObjectStore>,
    plan: Mutex<Plan>,
    requests: AtomicU64,
    cut: AtomicBool,
}

impl Faulty {
    pub(super) fn new(inner: Arc<dyn ObjectStore>) -> Self {
        Faulty { inner, plan: Mutex::new(Plan::Never), requests: AtomicU64::new(0), cut: AtomicBool::new(false) }
    }

    /// Fails the request of that number, counted from now and from 0.
    pub(super) fn fail_at(&self, request: u64, fault: Fault) {
        self.requests.store(0, Ordering::SeqCst);
        *self.plan.lock() = Plan::At(request, fault);
    }

    /// Fails the next put of a path that contains `part`.
    pub(super) fn fail_put_of(&self, part: &'static str, fault: Fault) {
        *self.plan.lock() = Plan::Put(part, fault);
    }

    /// Works again. Whether nothing had failed.
    pub(super) fn disarm(&self) -> bool {
        self.cut.store(false, Ordering::SeqCst);
        !matches!(std::mem::replace(&mut *self.plan.lock(), Plan::Never), Plan::Never)
    }

    /// Lets others go on, as if this request were on its way, and says how it fails.
    async fn on_its_way(&self, put: Option<&Path>) -> Option<Fault> {
        tokio::task::yield_now().await;
        self.fault(put)
    }

    fn fault(&self, put: Option<&Path>) -> Option<Fault> {
        if self.cut.load(Ordering::SeqCst) {
            return Some(Fault::Refuse);
        }
        let number = self.requests.fetch_add(1, Ordering::SeqCst);
        let mut plan = self.plan.lock();
        let fault = match &*plan {
            Plan::At(at, fault) if *at == number => *fault,
            Plan::Put(part, fault) if put.is_some_and(|path| path.as_ref().contains(part)) => *fault,
            _ => return None,
        };
        *plan = Plan::Never;
        self.cut.store(fault == Fault::LoseConnection, Ordering::SeqCst);
        Some(fault)
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Faulty({})", self.inner)
    }
}

/// A stream that begins when others have gone on.
fn later<T: Send + 'static>(
    inner: Arc<dyn ObjectStore>,
    begin: impl FnOnce(&dyn ObjectStore) -> BoxStream<'static, T> + Send + 'static,
) -> BoxStream<'static, T> {
    let begun = async move {
        tokio::task::yield_now().await;
        begin(inner.as_ref())
    };
    futures::stream::once(begun).flatten().boxed()
}

fn failed<T>() -> Result<T> {
    Err(Error::Generic { store: "Faulty", source: "connection reset".into() })
}

// Written out as `async_trait` expands it.
impl ObjectStore for Faulty {
    fn put_opts<'s, 'l, 'f>(
        &'s self,
        location: &'l Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> BoxFuture<'f, Result<PutResult>>
    where
        's: 'f,
        'l: 'f,
        Self: 'f,
    {
        Box::pin(async move {
            match self.on_its_way(Some(location)).await {
                None => {
                    let put = self.inner.put_opts(location, payload, options).await;
                    tokio::task::yield_now().await;
                    put
                }
                Some(Fault::LoseAnswer) => {
                    self.inner.put_opts(location, payload, options).await?;
                    failed()
                }
                Some(_) => failed(),
            }
        })
    }

    fn put_multipart_opts<'s, 'l, 'f>(
        &'s self,
        location: &'l Path,
        options: PutMultipartOptions,
    ) -> BoxFuture<'f, Result<Box<dyn MultipartUpload>>>
    where
        's: 'f,
        'l: 'f,
        Self: 'f,
    {
        Box::pin(async move {
            match self.on_its_way(Some(location)).await {
                None => self.inner.put_multipart_opts(location, options).await,
                Some(_) => failed(),
            }
        })
    }

    fn get_opts<'s, 'l, 'f>(&'s self, location: &'l Path, options: GetOptions) -> BoxFuture<'f, Result<GetResult>>
    where
        's: 'f,
        'l: 'f,
        Self: 'f,
    {
        Box::pin(async move {
            match self.on_its_way(None).await {
                None => self.inner.get_opts(location, options).await,
                Some(_) => failed(),
            }
        })
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        match self.fault(None) {
            None => later(self.inner.clone(), |inner| inner.delete_stream(locations)),
            Some(Fault::LoseAnswer) => {
                let deleted = self.inner.delete_stream(locations);
                deleted.map(|_| failed()).boxed()
            }
            Some(_) => futures::stream::once(async { failed() }).boxed(),
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.fault(None) {
            None => {
                let prefix = prefix.cloned();
                later(self.inner.clone(), move |inner| inner.list(prefix.as_ref()))
            }
            Some(_) => futures::stream::once(async { failed() }).boxed(),
        }
    }

    fn list_with_delimiter<'s, 'l, 'f>(&'s self, prefix: Option<&'l Path>) -> BoxFuture<'f, Result<ListResult>>
    where
        's: 'f,
        'l: 'f,
        Self: 'f,
    {
        self.inner.list_with_delimiter(prefix)
    }

    fn copy_opts<'s, 'l, 'm, 'f>(
        &'s self,
        from: &'l Path,
        to: &'m Path,
        options: CopyOptions,
    ) -> BoxFuture<'f, Result<()>>
    where
        's: 'f,
        'l: 'f,
        'm: 'f,
        Self: 'f,
    {
        self.inner.copy_opts(from, to, options)
    }
}
