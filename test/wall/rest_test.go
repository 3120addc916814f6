package wall

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// path is where a method is in REST.
type path struct{ verb, template, body string }

// readPaths reads rest.yaml: full method name to path.
func readPaths() (map[string]path, error) {
	text, err := os.ReadFile("../../proto/reeve/operator/v1/rest.yaml")
	if err != nil {
		return nil, err
	}
	var service struct {
		HTTP struct {
			Rules []map[string]string `yaml:"rules"`
		} `yaml:"http"`
	}
	if err := yaml.Unmarshal(text, &service); err != nil {
		return nil, err
	}
	paths := map[string]path{}
	for _, rule := range service.HTTP.Rules {
		for _, verb := range []string{"get", "post", "put", "delete", "patch"} {
			if rule[verb] != "" {
				paths[rule["selector"]] = path{strings.ToUpper(verb), rule[verb], rule["body"]}
			}
		}
	}
	return paths, nil
}

// paths is set once, before any call.
var paths map[string]path

var variable = regexp.MustCompile(`\{([a-z_.]+)\}`)

// fieldAt is the text of a field, of a message in it if the name has dots.
func fieldAt(m protoreflect.Message, name string) string {
	parent, rest, deep := strings.Cut(name, ".")
	fd := m.Descriptor().Fields().ByName(protoreflect.Name(parent))
	if deep {
		return fieldAt(m.Get(fd).Message(), rest)
	}
	return m.Get(fd).String()
}

// translate makes the HTTP request that says what message says.
func (d *door) translate(ctx context.Context, full string, message proto.Message) (*http.Request, error) {
	p, ok := paths[full]
	if !ok {
		return nil, fmt.Errorf("%s has no path in rest.yaml", full)
	}
	m := message.ProtoReflect()
	target := variable.ReplaceAllStringFunc(p.template, func(v string) string {
		return url.PathEscape(fieldAt(m, v[1:len(v)-1]))
	})
	query := url.Values{}
	var body []byte
	switch p.body {
	case "":
		m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
			if !strings.Contains(p.template, "{"+string(fd.Name())+"}") {
				query.Set(string(fd.Name()), v.String())
			}
			return true
		})
	case "*":
		raw, err := protojson.Marshal(message)
		if err != nil {
			return nil, err
		}
		body = raw
	default:
		raw, err := protojson.Marshal(m.Get(m.Descriptor().Fields().ByName(protoreflect.Name(p.body))).Message().Interface())
		if err != nil {
			return nil, err
		}
		body = raw
	}
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	return http.NewRequestWithContext(ctx, p.verb, d.base+target, bytes.NewReader(body))
}

func (d *door) callREST(ctx context.Context, full string, first bool, messages []proto.Message) answer {
	req, err := d.translate(ctx, full, messages[0])
	if err != nil {
		return answer{failed: err}
	}
	resp, err := d.client.Do(req)
	if err != nil {
		return answer{failed: err}
	}
	defer resp.Body.Close()
	a := answer{http: resp.StatusCode, header: resp.Header}
	// How long it is follows from the names that were asked for.
	defer func() { a.header.Del("Content-Length") }()
	var whole bytes.Buffer
	dec := json.NewDecoder(io.TeeReader(resp.Body, &whole))
	streams := methodOf(full).IsStreamingServer()
	for {
		var one json.RawMessage
		if err := dec.Decode(&one); err == io.EOF {
			break
		} else if err != nil {
			return answer{failed: err}
		}
		if streams {
			var item struct{ Result, Error json.RawMessage }
			if err := json.Unmarshal(one, &item); err != nil {
				return answer{failed: err}
			}
			if item.Error != nil {
				a.readProblem(item.Error)
				continue
			}
			one = item.Result
		}
		if resp.StatusCode != http.StatusOK {
			a.readProblem(one)
			continue
		}
		m, err := newMessage(methodOf(full).Output())
		if err == nil {
			err = protojson.Unmarshal(one, m)
		}
		if err != nil {
			return answer{failed: err}
		}
		a.messages = append(a.messages, m)
		if first {
			break
		}
	}
	a.body, a.trailer = whole.Bytes(), resp.Trailer
	return a
}

// readProblem reads a google.rpc.Status in JSON.
func (a *answer) readProblem(text []byte) {
	st := status.New(codes.OK, "").Proto()
	if err := protojson.Unmarshal(text, st); err != nil {
		a.code, a.message = codes.Unknown, "no status: "+string(text)
		return
	}
	a.code, a.message = codes.Code(st.GetCode()), st.GetMessage()
	if raw, err := proto.Marshal(st); err == nil {
		a.details = detailsOf(raw)
	}
}
