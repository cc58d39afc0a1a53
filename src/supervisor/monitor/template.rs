//! The template that workers are forked from: starts it, and handles its end.

use std::time::Instant;

use super::Monitor;
use crate::supervisor::settings::StartMethod;
use crate::supervisor::template::WhyDisabled;
use crate::trace::escape;

impl Monitor {
    /// Returns true if workers can be started now. Begins to use a template if the engine has none.
    pub(super) fn may_start(&mut self, now: Instant) -> bool {
        if self.template.is_absent() {
            let until = now.checked_add(self.start_limit());
            let program = &self.shared.settings.program;
            let event = self.shared.monitor_event();
            let disabled = match (program.start.is_forked(), self.shared.fork.take()) {
                (false, _) => self.template.begin(program, until, event),
                (true, None) => None,
                (true, Some(lease)) => {
                    self.template.take_fork(lease, until);
                    None
                }
            };
            self.report_disabled(disabled);
            // A template of another engine may be ready.
            self.look_at_template();
        }
        !self.template.is_awaited()
    }

    /// Handles news of the template, and its end.
    pub(super) fn look_at_template(&mut self) {
        let (now, was_absent) = (Instant::now(), self.template.is_absent());
        let disabled = self.template.look(now, self.start_limit());
        self.report_disabled(disabled);
        // If the template was lost, starts another at once, so that it can load before a worker is missing.
        if !was_absent && self.template.is_absent() {
            self.shared.fork.set_missing();
            self.may_start(now);
        }
    }

    /// Ends a template that has not answered a request in time.
    pub(super) fn end_silent_template(&mut self) {
        self.template.end_silent();
        self.look_at_template();
    }

    /// Reports why there will be no template.
    fn report_disabled(&self, why: WhyDisabled) {
        let Some(why) = why else {
            return;
        };
        let why = escape::escape_text(&why).to_string();
        let (StartMethod::Template { is_optional, .. } | StartMethod::Fork { is_optional, .. }) =
            self.shared.settings.program.start
        else {
            return;
        };
        if !is_optional {
            let text = format!("workers are started one by one, without a template: {why}");
            self.shared.notify_log(0, text);
        }
        let _ = self.shared.no_template.set(why);
    }
}
