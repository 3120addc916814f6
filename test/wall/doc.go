// Package wall tries the tenant wall (SECURITY.md, promise 4) from outside: the
// real control plane with two clients and the MSP on it, and every role that can
// reach one of its doors.
//
// The matrix is data: one row a method of a service, saying who is served and
// how a request names things. Methods are found by reflection over the
// contracts; one without a row fails the test, and so does a row without a
// method. Each method is called by each role at each door, over gRPC and REST,
// naming its own things, another tenant's and nobody's. Another tenant's must
// answer byte for byte as nobody's.
//
// Every text that a tenant's people and programs can put anywhere bears that
// tenant's marker. The client here is net/http, so that every header, body and
// trailer that came is at hand; none sent to one tenant bears another's marker.
//
// Of ours it imports the contracts, pki and test/sources.
package wall
