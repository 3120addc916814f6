// Package secrets owns what must never be written down in the clear: secrets
// that agent.yaml refers to (Resolve), passwords that the agent makes
// (GeneratePassword), and their sealing with age to recipients that only
// agent.yaml defines (Recipients).
//
// pluginhost takes resolved secrets to Configure; executor makes and seals the
// secrets of set_credential before anything is sent. A Secret prints as
// "[secret]" wherever it is formatted, logged or encoded.
package secrets
