//! The page, in a real browser: headless Chromium, driven by `WebDriver`. Skipped where there is no `chromedriver`.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use serde_json::{Value, json};

use crate::common::repository;
use crate::support::{Server, agent};

/// Key of an element's id in `WebDriver`'s answers.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

struct Browser {
    driver: Child,
    session: String,
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = agent().delete(&self.session).call();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

impl Browser {
    /// A window of this many pixels across, a phone's if it is narrow; none where there is no browser.
    fn open(width: u32) -> Option<Self> {
        let mut command = Command::new("chromedriver");
        command.arg("--port=0").stdout(Stdio::piped()).stderr(Stdio::null());
        let Ok(mut driver) = command.spawn() else {
            eprintln!("skipped: there is no chromedriver (Debian: chromium-driver)");
            return None;
        };
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = lines.find_map(|line| {
            let line = line.unwrap();
            let port = line.split_once("successfully on port ")?.1;
            Some(port.trim_end_matches('.').to_owned())
        });
        // Nobody reads on, but the driver must be able to write.
        std::thread::spawn(move || lines.for_each(drop));
        let driver_url = format!("http://127.0.0.1:{}", port.unwrap());
        let size = format!("--window-size={width},800");
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--lang=vi",
            &size,
        ];
        let mut options = json!({"args": arguments, "prefs": {"intl.accept_languages": "vi"}});
        if width < 500 {
            let metrics = json!({"width": width, "height": 800, "pixelRatio": 2, "touch": true, "mobile": true});
            options["mobileEmulation"] = json!({"deviceMetrics": metrics});
        }
        let capabilities =
            json!({"alwaysMatch": {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}});
        let answer = call("POST", &format!("{driver_url}/session"), &json!({"capabilities": capabilities}));
        let session = format!("{driver_url}/session/{}", answer["sessionId"].as_str().unwrap());
        Some(Self { driver, session })
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        call("POST", &format!("{}/{path}", self.session), body)
    }

    fn find(&self, selector: &str) -> String {
        let found = self.post("element", &json!({"using": "css selector", "value": selector}));
        format!("element/{}", found[ELEMENT].as_str().unwrap())
    }

    fn write(&self, selector: &str, text: &str) {
        self.post(&format!("{}/value", self.find(selector)), &json!({"text": text}));
    }

    fn click(&self, selector: &str) {
        self.post(&format!("{}/click", self.find(selector)), &json!({}));
    }

    fn run(&self, script: &str) -> Value {
        self.post("execute/sync", &json!({"script": script, "args": []}))
    }

    /// The text of the last element of a kind, once `wanted` holds of it.
    fn text_when(&self, selector: &str, wanted: impl Fn(&str) -> bool) -> String {
        let script = format!("return [...document.querySelectorAll({selector:?})].at(-1)?.textContent ?? ''");
        let started = Instant::now();
        loop {
            let text = self.run(&script).as_str().unwrap().to_owned();
            if wanted(&text) {
                return text;
            }
            assert!(started.elapsed() < Duration::from_mins(1), "{selector} is {text:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn screenshot(&self, file: &Path) {
        let picture = call("GET", &format!("{}/screenshot", self.session), &Value::Null);
        let bytes = base64::engine::general_purpose::STANDARD.decode(picture.as_str().unwrap()).unwrap();
        std::fs::write(file, bytes).unwrap();
    }

    /// What the page complained about.
    fn complaints(&self) -> Value {
        self.post("se/log", &json!({"type": "browser"}))
    }
}

fn call(method: &str, url: &str, body: &Value) -> Value {
    let mut response = match method {
        "GET" => agent().get(url).call(),
        _ => agent().post(url).send_json(body),
    }
    .unwrap();
    let answer: Value = response.body_mut().with_config().limit(64 << 20).read_json().unwrap();
    assert!(response.status().is_success(), "{url}: {answer}");
    answer["value"].clone()
}

/// Attaches the receipt, looks at its tiles, asks, and goes on in the conversation.
fn converse(browser: &Browser, server: &Server) {
    browser.post("url", &json!({"url": server.url("/")}));
    browser.text_when("#model", |text| text == "vintern-tiny");
    browser.text_when("#send", |text| text == "Gửi");
    browser.write("#files", repository().join("models/demo/receipt.png").to_str().unwrap());
    browser.text_when("#images button", |text| text == "×");
    browser.text_when("#images button:first-of-type", |text| text == "13 ô, 208 token");
    browser.click("#images button:first-of-type");
    assert_eq!(browser.run("return document.querySelectorAll('#seen-tiles img').length"), 13);
    browser.click("#seen button");
    browser.write("#question", "Tổng cộng là bao nhiêu?");
    browser.click("#send");
    browser.text_when("#turns .assistant:not(.waiting) span", |text| text == "4.322.000");
    browser.text_when("#turns .assistant:last-child small", |text| text.contains("278 token"));
    // Enter sends.
    browser.write("#question", "Ngày trên hóa đơn?\u{e007}");
    browser.text_when("#turns .assistant:last-child:not(.waiting) span", |text| text == "27/10/2032");
    let cached = browser.text_when("#turns .assistant:last-child small", |text| !text.is_empty());
    assert!(!cached.contains("(0 từ"), "{cached}");
}

#[test]
fn a_conversation_on_the_page() {
    let Some(browser) = Browser::open(1000) else { return };
    let server = Server::bundled(&[]);
    converse(&browser, &server);
    if let Some(folder) = std::env::var_os("SCREENSHOTS") {
        browser.screenshot(&Path::new(&folder).join("page.png"));
    }
    // A refused question can be changed and asked again.
    browser.click("#settings summary");
    browser.write("#num_beams", "99");
    browser.write("#question", "Ngày trên hóa đơn?");
    browser.run("document.querySelector('#ask').noValidate = true");
    browser.click("#send");
    browser.text_when("#turns .error", |text| text.contains("num_beams is 99"));
    assert_eq!(browser.run("return document.querySelector('#question').value"), "Ngày trên hóa đơn?");
    browser.click("#language");
    browser.text_when("#send", |text| text == "Send");
    browser.click("#new");
    assert_eq!(browser.run("return document.querySelectorAll('#turns li').length"), 0);
    let complaints = browser.complaints();
    let is_other = |entry: &&Value| !entry["message"].as_str().unwrap().contains("400");
    let other = complaints.as_array().unwrap().iter().find(is_other);
    assert!(other.is_none(), "{complaints}");
}

#[test]
fn the_page_fits_a_phone() {
    let Some(browser) = Browser::open(390) else { return };
    let server = Server::bundled(&[]);
    converse(&browser, &server);
    let overflow = browser.run("return document.documentElement.scrollWidth - document.documentElement.clientWidth");
    assert_eq!(overflow, 0, "the page is wider than the screen");
    if let Some(folder) = std::env::var_os("SCREENSHOTS") {
        browser.screenshot(&Path::new(&folder).join("page-phone.png"));
    }
}
