package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairlead/fairlead/internal/pki"
)

// followEvery is how often a rotation is asked about that is followed.
const followEvery = time.Second

func newCARotateCommand(flags *operatorFlags) *cobra.Command {
	var detach, status, pause, resume, undo, force bool
	cmd := &cobra.Command{
		Use:   "rotate AUTHORITY-ARN",
		Short: "Replace the key of a root authority while it is in use",
		Long: `Replaces the key and the certificate of a root authority, under its ARN, and
follows that until it is done. It goes on by itself if this command ends; the same
command with --status shows it again.

The steps, each of which waits until the one before has arrived at every proxy that
it concerns:

  trust      the new root is in every trust bundle, beside the old one
  issue      the new root issues; the authorities below get new certificates
  renew      ACM's certificates below are renewed
  serve      every proxy that presents them holds the renewed ones
  withdraw   the old root is out of every trust bundle
  done

A proxy counts while it is connected and for five minutes after. What a step waits
for is named. The old root is not taken out while a certificate that ACM does not
manage holds under it: --force goes on.`,
		Example: `  fairlead ca rotate arn:aws:acm-pca:us-east-1:000000000000:certificate-authority/ID
  fairlead ca rotate arn:aws:acm-pca:us-east-1:000000000000:certificate-authority/ID --undo`,
		Args: oneArg("the ARN of a root authority"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := flags.connect(cmd)
			if err != nil {
				return err
			}
			if status {
				return o.showRotation(cmd.Context(), args[0])
			}
			path := "/fairlead/v1/rotations"
			for verb, set := range map[string]bool{"pause": pause, "resume": resume, "undo": undo, "force": force} {
				if set {
					path += "/" + verb
				}
			}
			var now pki.RotationStatus
			raw, err := o.call(cmd.Context(), http.MethodPost, path, pki.RotationInput{AuthorityArn: args[0]}, &now)
			if err != nil {
				return err
			}
			if detach || pause || o.output == "json" {
				return o.print(raw, func(w io.Writer) { fmt.Fprint(w, rotationText(&now)) })
			}
			return follow(cmd.Context(), o, args[0])
		},
	}
	f := cmd.Flags()
	f.BoolVar(&detach, "detach", false, "do not follow what was begun")
	f.BoolVar(&status, "status", false, "show how it stands and what it waits for; change nothing")
	f.BoolVar(&pause, "pause", false, "do nothing more until --resume")
	f.BoolVar(&resume, "resume", false, "go on after --pause")
	f.BoolVar(&undo, "undo", false, "go back to the old root; possible until that is out")
	f.BoolVar(&force, "force", false, "go on with the next step, whatever this one waits for")
	cmd.MarkFlagsMutuallyExclusive("status", "pause", "resume", "undo", "force")
	cmd.MarkFlagsMutuallyExclusive("detach", "status")
	return cmd
}

// showRotation shows how the rotation of an authority stands.
func (o *operator) showRotation(ctx context.Context, arn string) error {
	now, err := o.rotation(ctx, arn)
	if err != nil {
		return err
	}
	raw, err := json.Marshal(now)
	if err != nil {
		return fmt.Errorf("print the answer: %w", err)
	}
	return o.print(raw, func(w io.Writer) { fmt.Fprint(w, rotationText(now)) })
}

// rotation is that of an authority.
func (o *operator) rotation(ctx context.Context, arn string) (*pki.RotationStatus, error) {
	var list pki.RotationList
	if _, err := o.call(ctx, http.MethodGet, "/fairlead/v1/rotations", nil, &list); err != nil {
		return nil, err
	}
	for i := range list.Rotations {
		if list.Rotations[i].AuthorityArn == arn {
			return &list.Rotations[i], nil
		}
	}
	return nil, fmt.Errorf("%s was never rotated", arn)
}

// follow prints what is new of a rotation until it is done. A server that does not
// answer is asked again.
func follow(ctx context.Context, o *operator, arn string) error {
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	said := ""
	for {
		now, err := o.rotation(ctx, arn)
		if refused := (*refusal)(nil); errors.As(err, &refused) || ctx.Err() != nil {
			return err
		}
		text := ""
		if err != nil {
			text = "the server does not answer: " + err.Error() + "\n"
		} else {
			text = rotationText(now)
		}
		if text != said {
			if _, err := io.WriteString(o.out, text); err != nil {
				return fmt.Errorf("print the progress: %w", err)
			}
			said = text
		}
		if now != nil && now.Step == pki.StepDone {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.New("interrupted; the rotation goes on: see it with --status, stop it with --pause")
		case <-tick.C:
		}
	}
}

// rotationText is how a rotation stands: one line, and one for each thing that it waits
// for.
func rotationText(s *pki.RotationStatus) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s since %s", s.Step, s.Changed.Format(time.DateTime))
	for _, note := range []struct {
		set  bool
		text string
	}{{s.Undone, "going back to the old root"}, {s.Paused, "paused"}, {s.Forced, "forced"}} {
		if note.set {
			b.WriteString(", " + note.text)
		}
	}
	b.WriteByte('\n')
	if s.Reason != "" {
		fmt.Fprintf(&b, "  waits: %s\n", s.Reason)
	}
	for _, p := range s.Proxies {
		fmt.Fprintf(&b, "  waits for proxy %s at %s, server %s, since %s: %s\n", p.Proxy, p.From, p.At, p.Since.Format(time.DateTime), p.Why)
	}
	for _, list := range [][]pki.Unready{s.Authorities, s.Certificates, s.Issued} {
		for _, u := range list {
			fmt.Fprintf(&b, "  waits for %s: %s\n", u.Arn, u.Why)
		}
	}
	if s.More {
		b.WriteString("  and for more of these\n")
	}
	return b.String()
}
