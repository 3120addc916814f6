// Package strictjson decodes JSON that was signed, or that carries signatures,
// so that no two readers can take one text for two things: unknown members,
// duplicate members, members that differ from a field's name in case, invalid
// UTF-8 and trailing data are refused at every depth. encoding/json alone lets
// the last duplicate win and matches names without regard to case.
//
// dsse and root decode through it.
package strictjson
