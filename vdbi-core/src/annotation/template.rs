//! Connection strings into which user and password are set.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use thiserror::Error;

use crate::secret::Secret;

const USER: &str = "{{user}}";
const PASSWORD: &str = "{{password}}";

/// Everything but RFC 3986's unreserved characters, which no part of a URL gives a meaning.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A connection string without its login.
///
/// With `{{user}}` and `{{password}}` those are replaced, whatever the form: JDBC, ODBC, a Go DSN. Without them the text has to be
/// a URL, and the login becomes its userinfo (RFC 3986, section 3.2.1). In a URL (`scheme://`) both are percent-encoded, elsewhere
/// they are not.
///
/// ```
/// use vdbi_core::{annotation::Template, secret::Secret};
///
/// let template = Template::parse("postgresql://db/shop")?;
/// let login = Secret::new("p@ss");
/// assert_eq!(template.render("app", &login).expose(), "postgresql://app:p%40ss@db/shop");
/// let template = Template::parse("host=db user={{user}} password={{password}}")?;
/// assert_eq!(template.render("app", &login).expose(), "host=db user=app password=p@ss");
/// # Ok::<(), vdbi_core::annotation::TemplateError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    text: String,
    /// Where the userinfo goes, in a template without placeholders.
    userinfo: Option<usize>,
}

/// Why a text is no template.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum TemplateError {
    /// There is none.
    #[error("it is missing or empty: write the connection string there")]
    Empty,
    /// It leaves no place for the login.
    #[error(
        "it has no place for the login: write {USER} and {PASSWORD} where they belong, or a URL such as postgresql://host/name"
    )]
    NoPlace,
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    ///
    /// See [`TemplateError`].
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(TemplateError::Empty);
        }
        if text.contains(USER) || text.contains(PASSWORD) {
            return Ok(Self { text: text.to_owned(), userinfo: None });
        }
        let place = authority(text).ok_or(TemplateError::NoPlace)?;
        let rest = &text[place..];
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        // A login that the user wrote gives way to the real one.
        let host = rest[..end].rfind('@').map_or(0, |at| at + 1);
        if host == end {
            return Err(TemplateError::NoPlace);
        }
        let text = format!("{}{}", &text[..place], &rest[host..]);
        Ok(Self { text, userinfo: Some(place) })
    }

    /// The connection string with this login, as the value of a pod's environment variable: in it Kubernetes expands what the
    /// template's author wrote, and nothing in the login.
    pub fn render(&self, user: &str, password: &Secret) -> Secret {
        let password = password.expose();
        Secret::new(match self.userinfo {
            Some(place) => {
                let (before, after) = self.text.split_at(place);
                format!("{before}{}:{}@{after}", encode(user), encode(password))
            }
            None if is_url(&self.text) => self.replace(&encode(user), &encode(password)),
            None => self.replace(&literal(user), &literal(password)),
        })
    }

    /// In one pass, so that a password that looks like a placeholder stays what it is.
    fn replace(&self, user: &str, password: &str) -> String {
        let mut rendered = String::with_capacity(self.text.len() + user.len() + password.len());
        let mut rest = self.text.as_str();
        while let Some(start) = rest.find("{{") {
            let (before, placeholder) = rest.split_at(start);
            rendered.push_str(before);
            rest = if let Some(after) = placeholder.strip_prefix(USER) {
                rendered.push_str(user);
                after
            } else if let Some(after) = placeholder.strip_prefix(PASSWORD) {
                rendered.push_str(password);
                after
            } else {
                rendered.push('{');
                &placeholder[1..]
            };
        }
        rendered.push_str(rest);
        rendered
    }
}

/// A text as the value of a pod's environment variable, where Kubernetes would replace `$(NAME)` and `$$` (the field `value` of a
/// container's EnvVar, core/v1): every dollar is doubled.
pub fn literal(text: &str) -> Cow<'_, str> {
    if text.contains('$') { text.replace('$', "$$").into() } else { text.into() }
}

/// Whether a connection string is a URL, in which user and password are percent-encoded wherever they are.
pub fn is_url(text: &str) -> bool {
    authority(text).is_some()
}

/// A user or a password as a part of a URL: percent-encoded but for the unreserved characters of RFC 3986, section 2.3.
pub fn encode(text: &str) -> Cow<'_, str> {
    utf8_percent_encode(text, RESERVED).into()
}

/// Where a URL's authority begins: behind `scheme://`. The scheme may be compound, as in `jdbc:postgresql://`.
fn authority(text: &str) -> Option<usize> {
    let colon = text.find("://")?;
    let scheme = &text[..colon];
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.' | ':'));
    is_scheme.then_some(colon + "://".len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use url::Url;

    use super::*;

    fn render(template: &str) -> String {
        Template::parse(template).unwrap().render("v-app", &Secret::new("p@s/s%")).expose().to_owned()
    }

    #[test]
    fn a_url_gets_an_encoded_login_and_keeps_everything_else() {
        for (template, rendered) in [
            (
                "postgresql://db:5432/shop?sslmode=require",
                "postgresql://v-app:p%40s%2Fs%25@db:5432/shop?sslmode=require",
            ),
            ("postgresql://old:login@db/shop", "postgresql://v-app:p%40s%2Fs%25@db/shop"),
            ("postgresql://$(HOST):$(PORT)/shop", "postgresql://v-app:p%40s%2Fs%25@$(HOST):$(PORT)/shop"),
            ("mongodb+srv://a,b/x?y=@z", "mongodb+srv://v-app:p%40s%2Fs%25@a,b/x?y=@z"),
            ("amqp://mq", "amqp://v-app:p%40s%2Fs%25@mq"),
        ] {
            assert_eq!(render(template), rendered);
        }
    }

    #[test]
    fn placeholders_are_replaced_wherever_they_are() {
        for (template, rendered) in [
            (
                "jdbc:postgresql://db/shop?user={{user}}&password={{password}}",
                "jdbc:postgresql://db/shop?user=v-app&password=p%40s%2Fs%25",
            ),
            ("postgresql://{{user}}:{{password}}@db/shop", "postgresql://v-app:p%40s%2Fs%25@db/shop"),
            ("{{user}}:{{password}}@tcp(db:3306)/shop", "v-app:p@s/s%@tcp(db:3306)/shop"),
            ("Driver=X;UID={{user}};PWD={{password}};{{other}}", "Driver=X;UID=v-app;PWD=p@s/s%;{{other}}"),
        ] {
            assert_eq!(render(template), rendered);
        }
    }

    #[test]
    fn kubernetes_expands_what_the_user_wrote_and_nothing_in_the_login() {
        let render = |template: &str| {
            Template::parse(template).unwrap().render("u", &Secret::new("a$(HOST)$")).expose().to_owned()
        };
        assert_eq!(render("{{user}}:{{password}}@tcp($(HOST))/x"), "u:a$$(HOST)$$@tcp($(HOST))/x");
        assert_eq!(render("postgresql://$(HOST)/x"), "postgresql://u:a%24%28HOST%29%24@$(HOST)/x");
    }

    #[test]
    fn what_leaves_no_place_for_the_login_is_refused() {
        assert_eq!(Template::parse(" "), Err(TemplateError::Empty));
        for template in
            ["db:5432/shop", "tcp(db:3306)/shop", "postgresql:///shop", "://db", "postgresql://user@"]
        {
            assert_eq!(Template::parse(template), Err(TemplateError::NoPlace), "{template}");
        }
    }

    proptest! {
        #[test]
        fn a_rendered_url_holds_exactly_the_login(user in "[ -~]{1,20}", password in "\\PC{1,30}") {
            let rendered = Template::parse("postgresql://db:5432/shop").unwrap().render(&user, &Secret::new(&*password));
            let url = Url::parse(rendered.expose()).unwrap();
            let decode = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8().unwrap().into_owned();
            prop_assert_eq!(decode(url.username()), user);
            prop_assert_eq!(decode(url.password().unwrap_or_default()), password);
            prop_assert_eq!(url.host_str(), Some("db"));
        }

        #[test]
        fn no_template_makes_the_parser_panic(template in "\\PC{0,60}", password in "\\PC{0,20}") {
            if let Ok(template) = Template::parse(&template) {
                template.render("user", &Secret::new(password));
            }
        }
    }
}
