// Package audittest gives an agent a history that it has not lived: records made
// by the real recorder and kept by the real journal, of acts that nobody did. It
// is for tests of what becomes of many records, and runs while the agent does not.
package audittest
