package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	operatorv1 "github.com/reevehq/reeve/proto/reeve/operator/v1"
)

// show prints a response as -o says.
func (a *app) show(m proto.Message, text func(*printer)) error {
	if a.output == outputJSON {
		return a.showJSON(m, "  ")
	}
	p := a.printer(a.env.Out)
	text(p)
	return p.flush()
}

// showJSON prints protojson, on one line when indent is empty. Fields without a
// value are printed, so that a script finds a zero and not nothing.
func (a *app) showJSON(m proto.Message, indent string) error {
	raw, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(m)
	if err != nil {
		return fmt.Errorf("write the response as JSON: %w", err)
	}
	return a.writeJSON(raw, indent)
}

// showData prints what no response describes.
func (a *app) showData(v any, text func(*printer)) error {
	if a.output != outputJSON {
		return a.show(nil, text)
	}
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("write the result as JSON: %w", err)
	}
	return a.writeJSON(raw, "  ")
}

// writeJSON normalises white space, which protojson leaves open.
func (a *app) writeJSON(raw []byte, indent string) error {
	var b bytes.Buffer
	var err error
	if indent == "" {
		err = json.Compact(&b, raw)
	} else {
		err = json.Indent(&b, raw, "", indent)
	}
	if err != nil {
		return err
	}
	_, err = a.env.Out.Write(append(operatorv1.VisibleJSON(b.Bytes()), '\n'))
	return err
}

// pageSize is how many rows are asked for at a time: the server's most.
const pageSize = 1000

// pages asks for a list to its end and returns one response that holds every
// row. Rows stay in the server's order.
func pages[Req, Resp proto.Message](ctx context.Context, a *app, call func(context.Context, Req, ...grpc.CallOption) (Resp, error), req Req) (Resp, error) {
	var all Resp
	progress := a.progress()
	defer progress.end()
	in := req.ProtoReflect()
	token := in.Descriptor().Fields().ByName("page_token")
	in.Set(in.Descriptor().Fields().ByName("page_size"), protoreflect.ValueOfUint32(pageSize))
	seen := map[string]bool{}
	for first := true; ; first = false {
		resp, err := call(ctx, req)
		if err != nil {
			return all, err
		}
		out := resp.ProtoReflect()
		nextField := out.Descriptor().Fields().ByName("next_page_token")
		next := out.Get(nextField).String()
		out.Clear(nextField)
		rows := 0
		if first {
			all = resp
			rows = rowsOf(out, out)
		} else {
			rows = rowsOf(all.ProtoReflect(), out)
		}
		if next == "" {
			return all, nil
		}
		if seen[next] {
			return all, local(ExitFailed, "PAGES", a.object, a.command, "the control plane gave out the same page twice", "try again; if it stays so, report it")
		}
		seen[next] = true
		in.Set(token, protoreflect.ValueOfString(next))
		progress.say("reading… %s", number(rows))
	}
}

// rowsOf appends the lists of page to those of all, unless they are the same
// message, and counts the rows.
func rowsOf(all, page protoreflect.Message) int {
	rows := 0
	fields := page.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		if !fd.IsList() {
			continue
		}
		if all.Interface() != page.Interface() && page.Has(fd) {
			into, from := all.Mutable(fd).List(), page.Get(fd).List()
			for j := range from.Len() {
				into.Append(from.Get(j))
			}
		}
		rows += all.Get(fd).List().Len()
	}
	return rows
}

// progress is one line on the terminal that is drawn again and again; off a
// terminal it says nothing.
type progress struct {
	a     *app
	on    bool
	drawn bool
}

func (a *app) progress() *progress { return &progress{a: a, on: a.env.IsTerminal(a.env.Err)} }

func (p *progress) say(format string, args ...any) {
	if p.on {
		p.drawn = true
		fmt.Fprintf(p.a.env.Err, "\r\x1b[2K%s", clean(fmt.Sprintf(format, args...)))
	}
}

func (p *progress) end() {
	if p.drawn {
		p.drawn = false
		fmt.Fprint(p.a.env.Err, "\r\x1b[2K")
	}
}
