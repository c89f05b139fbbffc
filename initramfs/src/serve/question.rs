//! What a request asks for. Nothing of it is trusted: a number of a network is one, or a 400.

use hyper::body::Body;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};

use super::content::{Answer, Content};
use super::{NetworkId, Site, TEXT};

/// Answers a request, without its body when it is a HEAD.
pub fn answer(site: &Site, request: &Request<impl Body>) -> Response<Answer> {
    let mut response = match *request.method() {
        Method::GET | Method::HEAD => look(site, request),
        _ => {
            let mut response = told(StatusCode::METHOD_NOT_ALLOWED, "GET and HEAD only");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            response
        }
    };
    if request.method() == Method::HEAD {
        let length = response.body().size_hint().exact().unwrap_or_default();
        response.headers_mut().insert(hyper::header::CONTENT_LENGTH, length.into());
        *response.body_mut() = Answer::default();
    }
    response
}

fn look(site: &Site, request: &Request<impl Body>) -> Response<Answer> {
    let headers = request.headers();
    let network = |text: Option<String>| -> Result<NetworkId, String> {
        text.ok_or("netid is missing: ?netid=16 hexadecimal digits")?.parse()
    };
    let query = request.uri().query().unwrap_or_default();
    let asked = || {
        let mut pairs = url::form_urlencoded::parse(query.as_bytes());
        network(pairs.find(|(name, _)| name == "netid").map(|(_, value)| value.into_owned()))
    };
    let found = match request.uri().path() {
        "/vmlinuz" => Ok(site.kernel.answer(headers)),
        "/initramfs" => Ok(site.initramfs.answer(headers)),
        "/g8os.iso" => asked().map(|network| site.template.of(&network).answer(headers)),
        "/g8os.ipxe" => asked().map(|network| script(site, &network).answer(headers)),
        path => match path.strip_prefix("/ipxe/").filter(|text| !text.is_empty()) {
            Some(text) => network(Some(text.into())).map(|network| script(site, &network).answer(headers)),
            None => Ok(told(StatusCode::NOT_FOUND, "nothing is here")),
        },
    };
    found.unwrap_or_else(|why| told(StatusCode::BAD_REQUEST, &why))
}

fn script(site: &Site, network: &NetworkId) -> Content {
    Content::new(site.script.of(network).into(), TEXT, "g8os.ipxe")
}

fn told(status: StatusCode, why: &str) -> Response<Answer> {
    let mut response = Response::new(Answer::from(format!("{why}\n")));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(TEXT));
    response
}
