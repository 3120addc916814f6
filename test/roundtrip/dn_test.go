package roundtrip

import (
	"encoding/hex"
	"strings"
)

// canonical writes a DN (RFC 4514) in one way: special characters as RFC 4514
// allows them everywhere, as \ and two digits, types in lower case. Letters and
// order of the rest stay.
func canonical(dn string) string {
	var out strings.Builder
	value := false
	for i := 0; i < len(dn); i++ {
		switch c := dn[i]; {
		case c == '\\' && i+2 < len(dn) && isHex(dn[i+1]) && isHex(dn[i+2]):
			raw, _ := hex.DecodeString(dn[i+1 : i+3]) // both are digits
			octet(&out, raw[0])
			i += 2
		case c == '\\' && i+1 < len(dn):
			i++
			octet(&out, dn[i])
		case !value && c == '=':
			value = true
			out.WriteByte(c)
		case value && (c == ',' || c == '+'):
			value = false
			out.WriteByte(c)
		case value:
			octet(&out, c)
		default:
			out.WriteString(strings.ToLower(string(rune(c))))
		}
	}
	return out.String()
}

func octet(out *strings.Builder, c byte) {
	if strings.IndexByte(` ,+"\;<>=#`, c) >= 0 {
		out.WriteString(`\` + hex.EncodeToString([]byte{c}))
		return
	}
	out.WriteByte(c)
}

func isHex(c byte) bool { return strings.IndexByte("0123456789abcdefABCDEF", c) >= 0 }

// refers reports attributes whose values are DNs.
func refers(attribute string) bool {
	switch strings.ToLower(attribute) {
	case "member", "uniquemember", "owner", "manager":
		return true
	}
	return false
}
