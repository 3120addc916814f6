// Package audit builds the agent's records: typed headers and bodies for what the
// agent did, refused, owes and noticed. It decides what goes into the header,
// which stays for ever and names people only by their random ids, and what goes
// into the body, which can be erased.
//
// It stands on journal, which salts, hashes, chains and signs. admission,
// executor, obligation and session call it within their own commits, so that a
// record and the effect it tells of become durable together.
package audit
