//! The simulated object store: in memory, slow, and failing now and then before or after it has done what was asked.

use std::fmt;
use std::sync::Arc;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::world::World;

/// The most microseconds that a request is under way.
const REQUEST_MICROS_MAX: u64 = 20_000;

/// A connection to the store, which outlives its clients.
#[derive(Debug)]
pub(super) struct SimulatedObjects {
    pub(super) world: World,
    pub(super) inner: Arc<InMemory>,
}

impl fmt::Display for SimulatedObjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimulatedObjects")
    }
}

impl SimulatedObjects {
    /// A request is on its way, or its answer.
    async fn on_its_way(world: &World, what: &str) -> Result<()> {
        world.machine.lag(REQUEST_MICROS_MAX).await;
        let failed =
            |error: crate::Error| Error::Generic { store: "SimulatedObjects", source: error.to_string().into() };
        world.may_fail(what).map_err(failed)
    }

    /// A stream that begins in a moment, or with an error.
    fn later<T: Send + 'static>(
        &self,
        what: &'static str,
        begin: impl FnOnce(&dyn ObjectStore) -> BoxStream<'static, Result<T>> + Send + 'static,
    ) -> BoxStream<'static, Result<T>> {
        let (world, inner) = (self.world.clone(), self.inner.clone());
        let begun = async move {
            match Self::on_its_way(&world, what).await {
                Ok(()) => begin(inner.as_ref()),
                Err(error) => futures::stream::once(async { Err(error) }).boxed(),
            }
        };
        futures::stream::once(begun).flatten().boxed()
    }
}

// Written out as `async_trait` expands it.
impl ObjectStore for SimulatedObjects {
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
            Self::on_its_way(&self.world, "a put that is not done").await?;
            let put = self.inner.put_opts(location, payload, options).await;
            Self::on_its_way(&self.world, "a put that is done").await?;
            put
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
        self.inner.put_multipart_opts(location, options)
    }

    fn get_opts<'s, 'l, 'f>(&'s self, location: &'l Path, options: GetOptions) -> BoxFuture<'f, Result<GetResult>>
    where
        's: 'f,
        'l: 'f,
        Self: 'f,
    {
        Box::pin(async move {
            Self::on_its_way(&self.world, "a get").await?;
            self.inner.get_opts(location, options).await
        })
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.later("a deletion", |inner| inner.delete_stream(locations))
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let prefix = prefix.cloned();
        self.later("a listing", move |inner| inner.list(prefix.as_ref()))
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
