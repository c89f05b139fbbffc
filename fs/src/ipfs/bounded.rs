//! The one way to a node: calls of the library `ipfs-api-backend-hyper`, over connections that are kept and within bounds.
//!
//! The library is two halves. Its calls, `IpfsApi`, go over any `Backend`; its own backend makes a connection for each call, waits
//! for ever and reads answers of any length. [`Bounded`] is a backend that has the library's write a request (URL, arguments,
//! credentials, form) and sends it itself. Every call is a POST, nothing is redirected, and no URL gets into an error.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, StreamExt};
use futures::{FutureExt, TryFutureExt};
use http_0_2::{HeaderName, HeaderValue, StatusCode};
use ipfs_api_backend_hyper::{BackendWithGlobalOptions, Form, GlobalOptions, IpfsClient};
use ipfs_api_prelude::{ApiRequest, Backend, BoxStream};
use reqwest::{Body, Client, Method, Request, RequestBuilder, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::answer::{ANSWER, Answer, Bound};
use super::error::RpcError;
use super::{Node, Reach};

/// How long a node may take for what costs it nothing.
pub(super) const SOON: Duration = Duration::from_secs(10);

/// A request of the library with arguments that it lacks.
#[derive(Serialize)]
pub(super) struct With<R, M> {
    #[serde(flatten)]
    pub(super) request: R,
    #[serde(flatten)]
    pub(super) more: M,
}

impl<R: ApiRequest, M: Serialize + Send> ApiRequest for With<R, M> {
    const PATH: &'static str = R::PATH;
}

/// A node, for one call.
pub(super) struct Bounded {
    library: IpfsClient,
    http: Client,
    reach: Reach,
    limit: Option<Duration>,
    most: usize,
}

impl Node {
    /// For a call that the node may think about for `limit`.
    pub(super) fn within(&self, limit: Duration) -> Bounded {
        Bounded { limit: Some(limit), ..self.listening() }
    }

    /// For a call that is answered line by line, to who looks at the clock himself.
    pub(super) fn listening(&self) -> Bounded {
        let (library, http) = (self.library.clone(), self.http.clone());
        Bounded { library, http, reach: Reach::Anywhere, limit: None, most: ANSWER }
    }
}

impl Bounded {
    /// The same, and it goes no further than `reach`.
    pub(super) fn reach(self, reach: Reach) -> Bounded {
        Bounded { reach, ..self }
    }

    /// The same, and the answer may have `most` bytes.
    pub(super) fn most(self, most: usize) -> Bounded {
        Bounded { most, ..self }
    }

    /// The lines of the answer to `request`.
    pub(super) fn lines<T: DeserializeOwned + Send + 'static>(
        &self,
        request: impl ApiRequest,
    ) -> Result<BoxStream<T, RpcError>, RpcError> {
        Ok(self.request_stream_json(self.build_base_request(request, None)?))
    }
}

/// A request that is ready to be sent.
pub(super) struct Asked {
    request: Request,
    bound: Bound,
}

impl Asked {
    /// The same with `form` for a body, which the library would send 2 KiB at a time.
    pub(super) fn carry(self, form: reqwest::multipart::Form, by: &Bounded) -> Result<Asked, RpcError> {
        let request = RequestBuilder::from_parts(by.http.clone(), self.request).multipart(form).build();
        let request = request.map_err(|error| RpcError::unaskable(self.bound.call, error.without_url()))?;
        Ok(Asked { request, ..self })
    }

    async fn send(self, http: Client) -> Result<Answer, RpcError> {
        let Asked { request, bound } = self;
        let answer = http.execute(request).map_err(|error| RpcError::unheard(bound.call, error));
        bound.in_time(answer.and_then(|answer| Answer::judge(answer, bound))).await
    }
}

#[async_trait]
impl Backend for Bounded {
    type HttpRequest = Asked;
    type HttpResponse = Answer;
    type Error = RpcError;

    fn with_credentials<U: Into<String>, P: Into<String>>(self, user: U, password: P) -> Bounded {
        Bounded { library: self.library.with_credentials(user, password), ..self }
    }

    fn build_base_request<R: ApiRequest>(
        &self,
        request: R,
        form: Option<Form<'static>>,
    ) -> Result<Asked, RpcError> {
        let call = name::<R>();
        let offline = match self.reach {
            Reach::Local => Some(true),
            Reach::Anywhere => None,
        };
        let options = GlobalOptions { offline, timeout: self.limit };
        let library = BackendWithGlobalOptions::new(self.library.clone(), options);
        let has_body = form.is_some();
        let asked = library.build_base_request(request, form);
        let (head, body) = asked.map_err(|error| RpcError::unaskable(call, error))?.into_parts();
        let url = Url::parse(&head.uri.to_string()).map_err(|error| RpcError::unaskable(call, error))?;
        let mut request = Request::new(Method::POST, url);
        for (name, value) in &head.headers {
            let name = reqwest::header::HeaderName::from_bytes(name.as_str().as_bytes());
            let value = reqwest::header::HeaderValue::from_bytes(value.as_bytes());
            let name = name.map_err(|error| RpcError::unaskable(call, error))?;
            let mut value = value.map_err(|error| RpcError::unaskable(call, error))?;
            value.set_sensitive(name == reqwest::header::AUTHORIZATION);
            request.headers_mut().append(name, value);
        }
        if has_body {
            *request.body_mut() = Some(Body::wrap_stream(body));
        }
        Ok(Asked {
            request,
            bound: Bound { call, most: self.most, began: Instant::now(), limit: self.limit },
        })
    }

    fn get_header(answer: &Answer, name: HeaderName) -> Option<&HeaderValue> {
        answer.header(&name)
    }

    async fn request_raw<R: ApiRequest>(
        &self,
        request: R,
        form: Option<Form<'static>>,
    ) -> Result<(StatusCode, Bytes), RpcError> {
        let answer = self.build_base_request(request, form)?.send(self.http.clone()).await?;
        Ok((StatusCode::OK, answer.whole().await?))
    }

    /// As the library's, with the call in the error.
    async fn request<R, T>(&self, request: R, form: Option<Form<'static>>) -> Result<T, RpcError>
    where
        R: ApiRequest,
        for<'de> T: 'static + serde::Deserialize<'de> + Send,
    {
        let (_, answer) = self.request_raw(request, form).await?;
        parsed(name::<R>(), &answer)
    }

    /// In one piece, since there is a bound to it.
    fn response_to_byte_stream(answer: Answer) -> BoxStream<Bytes, RpcError> {
        Box::new(stream::once(answer.whole().boxed()))
    }

    fn request_stream<T, F>(&self, asked: Asked, process: F) -> BoxStream<T, RpcError>
    where
        F: 'static + Send + Fn(Answer) -> BoxStream<T, RpcError>,
    {
        Box::new(Box::pin(asked.send(self.http.clone()).map_ok(process).try_flatten_stream()))
    }

    /// As the library's, which reads lines of any length, with the call in the error.
    fn request_stream_json<T>(&self, asked: Asked) -> BoxStream<T, RpcError>
    where
        for<'de> T: 'static + serde::Deserialize<'de> + Send,
    {
        self.request_stream(asked, |answer| {
            let call = answer.call();
            Box::new(Box::pin(answer.lines().map(move |line| parsed(call, &line?))))
        })
    }
}

/// A call as errors name it.
fn name<R: ApiRequest>() -> &'static str {
    R::PATH.strip_prefix('/').unwrap_or(R::PATH)
}

pub(super) fn parsed<T: DeserializeOwned>(call: &'static str, words: &[u8]) -> Result<T, RpcError> {
    serde_json::from_slice(words).map_err(|error| RpcError::strange(call, error))
}

#[cfg(test)]
mod tests {
    use ipfs_api_backend_hyper::request;
    use reqwest::header::AUTHORIZATION;

    use super::*;
    use crate::ipfs::RpcAddress;

    fn node() -> Node {
        Node::new(&"http://me:se%40cret@[::1]:5002".parse::<RpcAddress>().unwrap()).unwrap()
    }

    fn asked(by: &Bounded, request: impl ApiRequest) -> String {
        by.build_base_request(request, None).unwrap().request.url().to_string()
    }

    #[test]
    fn a_request_is_the_librarys_and_says_how_long_and_how_far_it_may_go() {
        let by = node().within(Duration::from_millis(1500)).reach(Reach::Local);
        let block = asked(&by, request::BlockStat { hash: "bafy" });
        let base = "http://[::1]:5002/api/v0";
        assert_eq!(block, format!("{base}/block/stat?offline=true&timeout=1s500000000ns&arg=bafy"));
        assert_eq!(asked(&node().listening(), request::RefsLocal), format!("{base}/refs/local?"));
    }

    #[test]
    fn a_request_has_what_the_library_lacks() {
        #[derive(Serialize)]
        #[serde(rename_all = "kebab-case")]
        struct More<'a> {
            allow_offline: bool,
            name: Option<&'a str>,
            other: Option<&'a str>,
        }
        let request = request::PinAdd { key: "bafy", recursive: Some(true), progress: true };
        let request = With { request, more: More { allow_offline: true, name: Some("a&b c"), other: None } };
        let pin = asked(&node().listening(), request);
        let (_, query) = pin.split_once("/pin/add?").unwrap();
        assert_eq!(query, "arg=bafy&recursive=true&progress=true&allow-offline=true&name=a%26b+c");
    }

    #[test]
    fn credentials_are_a_header_that_is_not_shown() {
        let Asked { request, .. } = node().listening().build_base_request(request::Version, None).unwrap();
        assert_eq!(request.method(), Method::POST);
        assert_eq!(request.headers()[AUTHORIZATION], "Basic bWU6c2VAY3JldA==");
        let told = format!("{request:?}");
        assert!(!told.contains("bWU6c2VAY3JldA") && !told.contains("cret"), "{told}");
    }

    #[test]
    fn what_is_too_long_to_be_asked_is_an_error_without_it() {
        let name = "secret".repeat(20_000);
        let error = node().listening().build_base_request(request::SwarmConnect { peer: &name }, None);
        let Err(error @ RpcError::Unaskable { .. }) = error else { panic!("{:?}", error.err()) };
        assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
        assert!(!error.may_pass());
    }
}
