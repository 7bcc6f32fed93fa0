import { LabIcon } from '@jupyterlab/ui-components';
// The bundle is made of what the compiler writes, lib/jupyterlab/src: seen from there.
import agents from '../../../style/agents.svg';

/** Three panes, one with a prompt. */
export const agentsIcon = new LabIcon({ name: 'orchestrator-lab:agents', svgstr: agents });
