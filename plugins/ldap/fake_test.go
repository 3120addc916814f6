package ldap

import (
	"bufio"
	"encoding/json"
	"net"
	"strings"
	"sync"
	"testing"

	ber "github.com/go-asn1-ber/asn1-ber"
	ldapv3 "github.com/go-ldap/ldap/v3"

	"github.com/reevehq/reeve/plugins/sdk"
)

// fake is a fake LDAP server for what OpenLDAP cannot be made to do: ranges of
// values, lost paging controls, hostile lengths. It answers binds and the root
// DSE itself and gives all else to script.
type fake struct {
	url      string
	controls []string
	script   func(r request, c *fakeConn)
}

type request struct {
	tag ber.Tag
	// base, scope and attributes of a search; base is the DN of a modify.
	base       string
	scope      int64
	attributes []string
	// cookie of the paging control.
	cookie string
}

type fakeConn struct {
	net.Conn
	id int64
}

func startFake(t testing.TB, f *fake) *fake {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	f.url = "ldap://" + l.Addr().String()
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { defer c.Close(); f.serve(c) })
		}
	})
	return f
}

func (f *fake) serve(raw net.Conn) {
	in := bufio.NewReader(raw)
	for {
		p, err := ber.ReadPacket(in)
		if err != nil || len(p.Children) < 2 {
			return
		}
		id, _ := p.Children[0].Value.(int64)
		c := &fakeConn{raw, id}
		op := p.Children[1]
		r := request{tag: op.Tag}
		switch op.Tag {
		case ldapv3.ApplicationUnbindRequest:
			return
		case ldapv3.ApplicationBindRequest:
			c.done(ldapv3.ApplicationBindResponse, 0)
			continue
		case ldapv3.ApplicationSearchRequest:
			r.base, r.scope = op.Children[0].Data.String(), op.Children[1].Value.(int64)
			for _, a := range op.Children[7].Children {
				r.attributes = append(r.attributes, a.Data.String())
			}
			if r.base == "" {
				c.entry("", "namingContexts", suffix, "supportedControl", strings.Join(f.controls, " "))
				c.done(ldapv3.ApplicationSearchResultDone, 0)
				continue
			}
		case ldapv3.ApplicationModifyRequest:
			r.base = op.Children[0].Data.String()
		}
		if len(p.Children) > 2 {
			for _, control := range p.Children[2].Children {
				if decoded, err := ldapv3.DecodeControl(control); err == nil {
					if paging, ok := decoded.(*ldapv3.ControlPaging); ok {
						r.cookie = string(paging.Cookie)
					}
				}
			}
		}
		f.script(r, c)
	}
}

func (c *fakeConn) send(op *ber.Packet, controls ...ldapv3.Control) {
	p := ber.Encode(ber.ClassUniversal, ber.TypeConstructed, ber.TagSequence, nil, "")
	p.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagInteger, c.id, ""))
	p.AppendChild(op)
	if len(controls) > 0 {
		list := ber.Encode(ber.ClassContext, ber.TypeConstructed, 0, nil, "")
		for _, control := range controls {
			list.AppendChild(control.Encode())
		}
		p.AppendChild(list)
	}
	_, _ = c.Write(p.Bytes())
}

func octets(s string) *ber.Packet {
	return ber.NewString(ber.ClassUniversal, ber.TypePrimitive, ber.TagOctetString, s, "")
}

func (c *fakeConn) done(tag ber.Tag, code int64, controls ...ldapv3.Control) {
	op := ber.Encode(ber.ClassApplication, ber.TypeConstructed, tag, nil, "")
	op.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagEnumerated, code, ""))
	op.AppendChild(octets(""))
	op.AppendChild(octets(""))
	c.send(op, controls...)
}

// entry sends attributes; values are split at spaces.
func (c *fakeConn) entry(dn string, attributes ...string) {
	op := ber.Encode(ber.ClassApplication, ber.TypeConstructed, ldapv3.ApplicationSearchResultEntry, nil, "")
	op.AppendChild(octets(dn))
	list := ber.Encode(ber.ClassUniversal, ber.TypeConstructed, ber.TagSequence, nil, "")
	for i := 0; i < len(attributes); i += 2 {
		a := ber.Encode(ber.ClassUniversal, ber.TypeConstructed, ber.TagSequence, nil, "")
		a.AppendChild(octets(attributes[i]))
		values := ber.Encode(ber.ClassUniversal, ber.TypeConstructed, ber.TagSet, nil, "")
		for _, v := range strings.Fields(attributes[i+1]) {
			values.AppendChild(octets(v))
		}
		a.AppendChild(values)
		list.AppendChild(a)
	}
	op.AppendChild(list)
	c.send(op)
}

func (c *fakeConn) referral(url string) {
	op := ber.Encode(ber.ClassApplication, ber.TypeConstructed, ldapv3.ApplicationSearchResultReference, nil, "")
	op.AppendChild(octets(url))
	c.send(op)
}

func (f *fake) open(t testing.TB, changes map[string]any) *Instance {
	t.Helper()
	all := map[string]any{"url": f.url, "timeout": "2s", "types": map[string]any{"groupOfNames": map[string]any{"bases": []string{groupsBase}}}}
	for k, v := range changes {
		all[k] = v
	}
	raw, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	i, err := New().Open(t.Context(), sdk.Settings{Alias: "fake", JSON: raw})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = i.Close() })
	return i.(*Instance)
}
