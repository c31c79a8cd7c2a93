//! Path: one path of the API with its methods. What it answers to other methods, it derives from them.

use actix_web::dev::{AppService, Handler, HttpServiceFactory};
use actix_web::http::Method;
use actix_web::{FromRequest, HttpMessage, HttpRequest, Resource, Responder, web};

use super::error::{ApiError, ApiResult};
use crate::failure::Code;

/// See the module.
pub(super) struct Path {
    resource: Resource,
    methods: Vec<Method>,
}

/// The methods of the path that was asked for, as the header `Allow` names them.
#[derive(Clone)]
pub(super) struct Allowed(pub(super) String);

/// A path without methods yet.
pub(super) fn at(path: &str) -> Path {
    Path { resource: web::resource(path), methods: Vec::new() }
}

impl Path {
    /// `GET` of something that ends, and `HEAD`, which gives the same without the body.
    pub(super) fn document<F, Args>(self, handler: F) -> Self
    where
        F: Handler<Args> + Clone,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        self.on(Method::GET, handler.clone()).on(Method::HEAD, handler)
    }

    /// `GET` of a stream: `HEAD` would have to start one to know what it is like.
    pub(super) fn stream<F, Args>(self, handler: F) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        self.on(Method::GET, handler)
    }

    /// `POST`.
    pub(super) fn post<F, Args>(self, handler: F) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        self.on(Method::POST, handler)
    }

    /// `PATCH`.
    pub(super) fn patch<F, Args>(self, handler: F) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        self.on(Method::PATCH, handler)
    }

    /// `DELETE`.
    pub(super) fn delete<F, Args>(self, handler: F) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        self.on(Method::DELETE, handler)
    }

    fn on<F, Args>(mut self, method: Method, handler: F) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        self.resource = self.resource.route(web::method(method.clone()).to(handler));
        self.methods.push(method);
        self
    }
}

impl HttpServiceFactory for Path {
    fn register(self, config: &mut AppService) {
        let methods: Vec<_> = self.methods.iter().map(Method::as_str).collect();
        let allowed = Allowed(methods.join(", "));
        let refuse = move |request: HttpRequest| {
            request.extensions_mut().insert(allowed.clone());
            no_such_method()
        };
        self.resource.default_service(web::to(refuse)).register(config);
    }
}

async fn no_such_method() -> ApiResult {
    Err(ApiError::new(Code::MethodNotAllowed, "this path has other methods"))
}
