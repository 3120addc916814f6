package ldap

import (
	"fmt"

	ber "github.com/go-asn1-ber/asn1-ber"
	"github.com/go-ldap/ldap/v3"
)

// assertion is the request control of RFC 4528: the request is carried out only
// if the filter holds for its target at that very moment, else it fails with
// result code 122.
type assertion struct{ filter string }

// GetControlType implements ldap.Control.
func (assertion) GetControlType() string { return oidAssertion }

// Encode implements ldap.Control. The filter is one of ours, made of escaped
// values, and always compiles.
func (a assertion) Encode() *ber.Packet {
	packet := ber.Encode(ber.ClassUniversal, ber.TypeConstructed, ber.TagSequence, nil, "Control")
	packet.AppendChild(ber.NewString(ber.ClassUniversal, ber.TypePrimitive, ber.TagOctetString, oidAssertion, "Control Type"))
	packet.AppendChild(ber.NewBoolean(ber.ClassUniversal, ber.TypePrimitive, ber.TagBoolean, true, "Criticality"))
	value := ber.Encode(ber.ClassUniversal, ber.TypePrimitive, ber.TagOctetString, nil, "Control Value")
	if filter, err := ldap.CompileFilter(a.filter); err == nil {
		value.AppendChild(filter)
	}
	packet.AppendChild(value)
	return packet
}

// String implements ldap.Control.
func (a assertion) String() string { return fmt.Sprintf("assertion of %s", a.filter) }
